internal import OpenELMBindings

/// Options for text generation. Defaults match the command line: greedy, at most 256 tokens.
///
///     GenerationOptions(sampling: .random(top: 40, seed: 7), temperature: 0.8)
public struct GenerationOptions: Sendable, Equatable {
    /// The sampling mode; `nil` is greedy, or sampling from all tokens if the temperature is above
    /// 0.
    public var sampling: SamplingMode?
    /// The sampling temperature: values below 1 favour likely tokens. `nil` is 1 for random
    /// sampling; 0 always picks the most likely token.
    public var temperature: Double?
    /// The maximum number of tokens to generate; `nil` is limited by the model's context only.
    public var maximumResponseTokens: Int?
    /// The penalty on repeated tokens; 1 disables it, Apple's OpenELM examples use 1.2.
    public var repetitionPenalty: Double
    /// Stop strings. The text ends before the first one.
    public var stop: [String]
    /// Continues after the end-of-sequence token.
    public var ignoreEos: Bool
    /// Prompt tokens per prefill step; `nil` is 128 on a CPU and 512 on a GPU.
    public var prefillChunk: Int?

    /// Creates options.
    public init(
        sampling: SamplingMode? = nil, temperature: Double? = nil,
        maximumResponseTokens: Int? = 256, repetitionPenalty: Double = 1,
        stop: [String] = [], ignoreEos: Bool = false, prefillChunk: Int? = nil
    ) {
        self.sampling = sampling
        self.temperature = temperature
        self.maximumResponseTokens = maximumResponseTokens
        self.repetitionPenalty = repetitionPenalty
        self.stop = stop
        self.ignoreEos = ignoreEos
        self.prefillChunk = prefillChunk
    }

    /// A method of choosing the next token.
    public struct SamplingMode: Sendable, Equatable {
        /// `nil` picks the most likely token.
        fileprivate let draw: Draw?

        /// Always picks the most likely token.
        public static let greedy = SamplingMode(draw: nil)

        /// Samples a token at random. The same seed gives the same text; `nil` uses a new seed.
        ///
        /// - Parameters:
        ///   - top: The number of most likely tokens to draw from (top-k); 0 is all.
        ///   - probabilityThreshold: Samples from the smallest set of most likely tokens with this
        ///     total probability (top-p), in (0, 1].
        ///   - minP: Drops tokens with less than this fraction of the highest probability, in
        ///     [0, 1].
        ///   - seed: The random seed.
        public static func random(
            top: Int = 0, probabilityThreshold: Double = 1, minP: Double = 0, seed: UInt64? = nil
        ) -> SamplingMode {
            SamplingMode(
                draw: Draw(
                    top: top, probabilityThreshold: probabilityThreshold, minP: minP, seed: seed))
        }
    }

    func ffiOptions() throws -> OpenELMBindings.GenerationOptions {
        let draw = sampling?.draw
        let temperature: Double =
            switch sampling {
            case nil: self.temperature ?? 0
            // A negative temperature is an error in greedy mode, too.
            case .greedy?: min(self.temperature ?? 0, 0)
            case _?: self.temperature ?? 1
            }
        return OpenELMBindings.GenerationOptions(
            maxTokens: try maximumResponseTokens.map { try count("maximumResponseTokens", $0) }
                ?? .max,
            temperature: Float(temperature), topK: try count("top", draw?.top ?? 0),
            topP: Float(draw?.probabilityThreshold ?? 1), minP: Float(draw?.minP ?? 0),
            repetitionPenalty: Float(repetitionPenalty), seed: draw?.seed, stop: stop,
            logprobs: 0, prefillChunk: try prefillChunk.map { try count("prefillChunk", $0) },
            ignoreEos: ignoreEos)
    }
}

private struct Draw: Sendable, Equatable {
    let top: Int
    let probabilityThreshold: Double
    let minP: Double
    let seed: UInt64?
}

/// A count for the library; throws if it is negative.
func count(_ name: String, _ value: Int) throws -> UInt64 {
    guard let count = UInt64(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 or more, found \(value)")
    }
    return count
}

/// A 32-bit count for the library; throws if it is out of range.
func smallCount(_ name: String, _ value: Int) throws -> UInt32 {
    guard let count = UInt32(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 to \(UInt32.max), found \(value)")
    }
    return count
}
