import Foundation
internal import OpenELMBindings

/// How a model is converted.
public struct ConversionOptions: Sendable, Equatable {
    /// What is written.
    public enum Format: Sendable, Equatable {
        /// A folder for this package and mlx-lm.
        case mlx
        /// A folder in the layout of Apple's repositories.
        case huggingFace
        /// A GGUF file of `f32`, `f16`, `bf16`, `q8_0` or `q4_0`.
        case gguf(type: String)
    }

    /// How matrices are quantised.
    public struct Quantization: Sendable, Equatable {
        /// The layout of MLX that they get.
        public enum Mode: String, Sendable {
            /// Whole numbers of 2, 3, 4, 5, 6 or 8 bits, with a scale and an offset for each group.
            case affine
            /// Floats of 4 bits in groups of 32, with a power of two as their scale.
            case mxfp4
            /// Floats of 8 bits in groups of 32, with a power of two as their scale.
            case mxfp8
            /// Floats of 4 bits in groups of 16, with a float of 8 bits as their scale.
            case nvfp4
        }

        /// The layout.
        public var mode: Mode
        /// Bits of a weight; `nil` is the mode's own number.
        public var bits: Int?
        /// Weights that share a scale; `nil` is the mode's own number.
        public var groupSize: Int?
        /// More bits for some layers, as mlx-lm's `mixed_4_6`; of the affine mode only.
        public var recipe: String?

        /// A quantization.
        public init(
            mode: Mode = .affine, bits: Int? = nil, groupSize: Int? = nil, recipe: String? = nil
        ) {
            self.mode = mode
            self.bits = bits
            self.groupSize = groupSize
            self.recipe = recipe
        }
    }

    /// What is written.
    public var format = Format.mlx
    /// `float32`, `float16` or `bfloat16`; `nil` is the stored type.
    public var dtype: String?
    /// How matrices are quantised; `nil` is not at all.
    public var quantization: Quantization?
    /// Expands quantised matrices.
    public var dequantizes = false
    /// An adapter to fuse into the weights.
    public var adapter: URL?
    /// The tokenizer's file or folder; `nil` is the source's.
    public var tokenizer: URL?
    /// Replaces what is at the target.
    public var replacesTarget = false
    /// Reads back what was written and compares the two models.
    public var verifies = false

    /// The defaults.
    public init() {}

    func bound() throws -> ConvertOptions {
        let quantize = try quantization.map { quantization in
            QuantizeOptions(
                mode: quantization.mode.rawValue,
                bits: try quantization.bits.map { try small("bits", $0) },
                groupSize: try quantization.groupSize.map { try small("groupSize", $0) },
                recipe: quantization.recipe)
        }
        let format: ConvertFormat =
            switch self.format {
            case .mlx: .mlx
            case .huggingFace: .huggingFace
            case .gguf(let type): .gguf(fileType: type)
            }
        return ConvertOptions(
            format: format, dtype: dtype, quantize: quantize, dequantize: dequantizes,
            adapter: adapter?.path, tokenizer: tokenizer?.path, force: replacesTarget,
            verify: verifies)
    }
}

/// What a conversion did.
public struct ConversionReport: Sendable, Equatable {
    /// What was written.
    public let target: URL
    /// Parameters of the model.
    public let parameterCount: Int
    /// Bytes of the weights that were read.
    public let sourceBytes: Int
    /// Bytes of the weights that were written.
    public let bytes: Int
    /// Bits of a weight on the mean, scales included.
    public let bitsPerWeight: Double
    /// Mean divergence of the two models' next-token distributions, in nats, if it was verified.
    public let meanDivergence: Double?
    /// Share of positions where both hold the same token likeliest, if it was verified.
    public let agreement: Double?
}

extension LanguageModel {
    /// Converts the model at `source`, a folder or file, to `target`, a new folder or GGUF file.
    /// `progress` is told the share that has been written, from 0 to 1. If it fails or its task is
    /// cancelled, the target is as it was.
    @discardableResult
    public static func convert(
        _ source: URL, to target: URL, options: ConversionOptions = ConversionOptions(),
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws -> ConversionReport {
        try Memory.prepare()
        try Task.checkCancellation()
        let bound = try options.bound()
        let run = try translated {
            try OpenELMBindings.convert(source: source.path, target: target.path, options: bound)
        }
        let running = Running(run)
        while let event = try await running.next() {
            if case .written(_, let done, let total) = event, total > 0 {
                progress(Double(done) / Double(total))
            }
        }
        let report = try translated { try run.report() }
        progress(1)
        return ConversionReport(
            target: URL(filePath: report.target), parameterCount: Int(report.parameters),
            sourceBytes: Int(report.sourceBytes), bytes: Int(report.bytes),
            bitsPerWeight: report.bitsPerWeight, meanDivergence: report.meanKl,
            agreement: report.top1Agreement)
    }
}

private func small(_ name: String, _ value: Int) throws -> UInt32 {
    guard let small = UInt32(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 to \(UInt32.max), found \(value)")
    }
    return small
}
