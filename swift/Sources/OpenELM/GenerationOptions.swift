internal import OpenELMBindings

/// Options of text generation. The defaults are the command line's: greedy, at most 256 tokens.
///
///     GenerationOptions(sampling: .random(top: 40, seed: 7), temperature: 0.8)
public struct GenerationOptions: Sendable, Equatable {
    /// The choice of the next token; `nil` is greedy, or with a temperature above 0 a draw from all
    /// tokens.
    public var sampling: SamplingMode?
    /// Divides the logits before a draw: below 1 likely tokens become more likely. `nil` is 1 for a
    /// draw; 0 always takes the most likely token.
    public var temperature: Double?
    /// Most tokens to generate; `nil` is as many as the model's context holds.
    public var maximumResponseTokens: Int?
    /// Penalty on repeated tokens; 1 is none, OpenELM's own examples use 1.2.
    public var repetitionPenalty: Double
    /// Strings that end the text; the text ends before them.
    public var stop: [String]
    /// Continues after the end-of-sequence token.
    public var ignoreEos: Bool
    /// Tokens of the prompt to read at a time; `nil` is 128 on a CPU and 512 on a GPU.
    public var prefillChunk: Int?

    /// Options.
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

    /// The choice of the next token.
    public struct SamplingMode: Sendable, Equatable {
        /// `nil` takes the most likely token.
        fileprivate let draw: Draw?

        /// Always the most likely token.
        public static let greedy = SamplingMode(draw: nil)

        /// Draws a token. The same seed gives the same text; `nil` picks one.
        ///
        /// - Parameters:
        ///   - top: Number of most likely tokens to draw from (top-k); 0 is all.
        ///   - probabilityThreshold: Draws from the fewest most likely tokens with this total
        ///     probability (top-p), in (0, 1].
        ///   - minP: Drops tokens with a probability below this share of the highest one, in [0, 1].
        ///   - seed: Seed of the draws.
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
            // A negative temperature is an error for a greedy text, too.
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

/// A count for the library that has 32 bits there.
func smallCount(_ name: String, _ value: Int) throws -> UInt32 {
    guard let count = UInt32(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 to \(UInt32.max), found \(value)")
    }
    return count
}
