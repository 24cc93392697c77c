internal import OpenELMBindings

/// How a text is generated. The defaults are the command line's: greedy, 256 tokens at most.
///
///     GenerationOptions(sampling: .random(top: 40, seed: 7), temperature: 0.8)
public struct GenerationOptions: Sendable, Equatable {
    /// How a token is chosen; `nil` is greedy, or with a temperature above 0 a draw among all.
    public var sampling: SamplingMode?
    /// Divides the logits before a draw: below 1 likely tokens become likelier. `nil` is 1 for a
    /// draw; 0 always takes the likeliest token.
    public var temperature: Double?
    /// The most tokens to generate; `nil` is as many as the model's context holds.
    public var maximumResponseTokens: Int?
    /// Penalty on tokens already seen; 1 is none, OpenELM's own examples use 1.2.
    public var repetitionPenalty: Double
    /// Strings that end the text and are no part of it.
    public var stopSequences: [String]
    /// Goes on after the end-of-sequence token.
    public var ignoresEndOfSequence: Bool
    /// Tokens of the prompt to read at a time; `nil` is 128 on a CPU and 512 on a GPU.
    public var prefillChunk: Int?

    /// Options.
    public init(
        sampling: SamplingMode? = nil, temperature: Double? = nil,
        maximumResponseTokens: Int? = 256, repetitionPenalty: Double = 1,
        stopSequences: [String] = [], ignoresEndOfSequence: Bool = false, prefillChunk: Int? = nil
    ) {
        self.sampling = sampling
        self.temperature = temperature
        self.maximumResponseTokens = maximumResponseTokens
        self.repetitionPenalty = repetitionPenalty
        self.stopSequences = stopSequences
        self.ignoresEndOfSequence = ignoresEndOfSequence
        self.prefillChunk = prefillChunk
    }

    /// How the next token is chosen.
    public struct SamplingMode: Sendable, Equatable {
        /// `nil` takes the likeliest token.
        fileprivate let draw: Draw?

        /// Always the likeliest token.
        public static let greedy = SamplingMode(draw: nil)

        /// Draws a token. The same seed gives the same text; `nil` picks one.
        ///
        /// - Parameters:
        ///   - top: Draws among this many likeliest tokens (top-k); 0 is all.
        ///   - probabilityThreshold: Draws among the fewest likeliest tokens of this total
        ///     probability (top-p), in (0, 1].
        ///   - minP: Drops tokens less likely than this share of the likeliest one's probability,
        ///     in [0, 1].
        ///   - seed: Seed of the draws.
        public static func random(
            top: Int = 0, probabilityThreshold: Double = 1, minP: Double = 0, seed: UInt64? = nil
        ) -> SamplingMode {
            SamplingMode(
                draw: Draw(
                    top: top, probabilityThreshold: probabilityThreshold, minP: minP, seed: seed))
        }
    }

    func bound() throws -> OpenELMBindings.GenerationOptions {
        let draw = sampling?.draw
        let temperature: Double =
            switch sampling {
            case nil: self.temperature ?? 0
            // What lies outside the range is still refused.
            case .greedy?: min(self.temperature ?? 0, 0)
            case _?: self.temperature ?? 1
            }
        return OpenELMBindings.GenerationOptions(
            maxTokens: try maximumResponseTokens.map { try count("maximumResponseTokens", $0) }
                ?? .max,
            temperature: Float(temperature), topK: try count("top", draw?.top ?? 0),
            topP: Float(draw?.probabilityThreshold ?? 1), minP: Float(draw?.minP ?? 0),
            repetitionPenalty: Float(repetitionPenalty), seed: draw?.seed, stop: stopSequences,
            logprobs: 0, prefillChunk: try prefillChunk.map { try count("prefillChunk", $0) },
            ignoreEos: ignoresEndOfSequence)
    }
}

private struct Draw: Sendable, Equatable {
    let top: Int
    let probabilityThreshold: Double
    let minP: Double
    let seed: UInt64?
}

/// A count for the library.
func count(_ name: String, _ value: Int) throws -> UInt64 {
    guard let count = UInt64(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 or more, found \(value)")
    }
    return count
}
