import Foundation
internal import OpenELMBindings

/// Options for a conversion. Defaults match `openelm convert`.
public struct ConvertOptions: Sendable, Hashable, Codable {
    /// An output format.
    public enum Format: Sendable, Hashable, Codable {
        /// A folder for this package and mlx-lm.
        case mlx
        /// A folder in the layout of Apple's Hugging Face repositories.
        case huggingFace
        /// A GGUF file for llama.cpp.
        case gguf(GGUFType)
        /// A state dict of PyTorch with CoreNet's names, a `.pt` file.
        case coreNet
        /// A folder of CoreNet's MLX example, for the four released sizes.
        case coreNetMLX
    }

    /// The type of the matrices in a GGUF file.
    public enum GGUFType: String, Sendable, Codable, CaseIterable {
        /// 32-bit floats.
        case f32
        /// 16-bit floats.
        case f16
        /// 16-bit floats with the range of 32-bit floats.
        case bf16
        /// 8-bit integers (`q8_0`).
        case q8 = "q8_0"
        /// 4-bit integers (`q4_0`).
        case q4 = "q4_0"
    }

    /// Quantisation options.
    public struct Quantize: Sendable, Hashable, Codable {
        /// A number format of MLX.
        public enum Mode: String, Sendable, Codable, CaseIterable {
            /// Integers of 2, 3, 4, 5, 6 or 8 bits, with a scale and an offset per group.
            case affine
            /// 4-bit floats in groups of 32, with a power of two as their scale.
            case mxfp4
            /// 8-bit floats in groups of 32, with a power of two as their scale.
            case mxfp8
            /// 4-bit floats in groups of 16, with an 8-bit float as their scale.
            case nvfp4
        }

        /// The number format.
        public var mode: Mode
        /// Bits per weight; `nil` is the mode's default.
        public var bits: Int?
        /// Weights per scale; `nil` is the mode's default.
        public var groupSize: Int?
        /// A mixed-bit recipe such as mlx-lm's `mixed_4_6`, with more bits for some layers; affine
        /// mode only.
        public var recipe: String?

        /// Creates quantisation options; by default 4 bits in groups of 64.
        public init(
            mode: Mode = .affine, bits: Int? = nil, groupSize: Int? = nil, recipe: String? = nil
        ) {
            self.mode = mode
            self.bits = bits
            self.groupSize = groupSize
            self.recipe = recipe
        }
    }

    /// The output format.
    public var format = Format.mlx
    /// The number format of the result; `nil` keeps the stored one.
    public var dtype: DType?
    /// Quantises the matrices; `nil` leaves them unchanged.
    public var quantize: Quantize?
    /// Dequantises quantised matrices.
    public var dequantize = false
    /// An adapter to fuse into the weights.
    public var adapter: URL?
    /// A tokenizer file or folder; `nil` uses the source's tokenizer.
    public var tokenizer: URL?
    /// Replaces the target if it exists.
    public var force = false
    /// Verifies the result against the source.
    public var verify = true

    /// Creates options with default values.
    public init() {}

    func ffiOptions() throws -> OpenELMBindings.ConvertOptions {
        let quantize = try quantize.map { quantize in
            QuantizeOptions(
                mode: quantize.mode.rawValue,
                bits: try quantize.bits.map { try smallCount("bits", $0) },
                groupSize: try quantize.groupSize.map { try smallCount("groupSize", $0) },
                recipe: quantize.recipe)
        }
        let format: ConvertFormat =
            switch self.format {
            case .mlx: .mlx
            case .huggingFace: .huggingFace
            case .gguf(let type): .gguf(fileType: type.rawValue)
            case .coreNet: .coreNet
            case .coreNetMLX: .coreNetMlx
            }
        return OpenELMBindings.ConvertOptions(
            format: format, dtype: dtype?.rawValue, quantize: quantize, dequantize: dequantize,
            adapter: try adapter.map { try filePath($0, "adapter") },
            tokenizer: try tokenizer.map { try filePath($0, "tokenizer") }, force: force,
            verify: verify)
    }
}

/// The result of a conversion.
public struct ConvertReport: Sendable, Hashable, Codable {
    /// The written folder or file.
    public let target: URL
    /// The number of parameters.
    public let parameterCount: Int
    /// Bytes of weights read.
    public let sourceBytes: Int
    /// Bytes of weights written.
    public let bytes: Int
    /// Mean bits per weight, including scales.
    public let bitsPerWeight: Double
    /// Mean KL divergence between the two models' next-token distributions, in nats, if verified.
    public let meanKl: Double?
    /// Fraction of positions with the same most likely token in both models, if verified.
    public let top1Agreement: Double?
}

extension LanguageModel {
    /// Converts the model at `source`, a folder or file, to `target`, a new folder or GGUF file.
    /// Calls `progress` with the fraction written, from 0 to 1. An error or a cancelled task leaves
    /// the target unchanged.
    @discardableResult
    public static func convert(
        _ source: URL, to target: URL, options: ConvertOptions = ConvertOptions(),
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws -> ConvertReport {
        try Memory.prepare()
        try Task.checkCancellation()
        let options = try options.ffiOptions()
        let (source, target) = (try filePath(source, "source"), try filePath(target, "target"))
        let run = try translated {
            try OpenELMBindings.convert(source: source, target: target, options: options)
        }
        let running = Running(run)
        while let event = try await running.next() {
            if case .written(_, let done, let total) = event, total > 0 {
                progress(Double(done) / Double(total))
            }
        }
        let report = try translated { try run.report() }
        progress(1)
        return ConvertReport(
            target: URL(filePath: report.target), parameterCount: Int(report.parameters),
            sourceBytes: Int(report.sourceBytes), bytes: Int(report.bytes),
            bitsPerWeight: report.bitsPerWeight, meanKl: report.meanKl,
            top1Agreement: report.top1Agreement)
    }
}
