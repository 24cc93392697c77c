internal import OpenELMBindings

/// How a text is generated.
public struct GenerationOptions: Sendable, Equatable {
    /// Divides the logits before the draw; 0 always takes the likeliest token.
    public var temperature: Float
    /// Draws among the fewest likeliest tokens of this total probability, in (0, 1].
    public var topP: Float
    /// Draws among this many likeliest tokens; 0 means all.
    public var topK: Int
    /// Drops tokens less likely than this share of the likeliest one's probability, in [0, 1].
    public var minP: Float
    /// Penalty on tokens already seen; 1 is none, OpenELM's own examples use 1.2.
    public var repetitionPenalty: Float
    /// The most tokens to generate.
    public var maximumResponseTokens: Int
    /// Strings that end the text and are no part of it.
    public var stopSequences: [String]
    /// Seed of the draws: the same seed gives the same text. `nil` picks one.
    public var seed: UInt64?
    /// Goes on after the end-of-sequence token.
    public var ignoresEndOfSequence: Bool
    /// Tokens of the prompt to read at a time; `nil` is 128 on a CPU and 512 on a GPU.
    public var prefillChunk: Int?

    /// Options; the defaults are the command line's.
    public init(
        temperature: Float = 0, topP: Float = 1, topK: Int = 0, minP: Float = 0,
        repetitionPenalty: Float = 1, maximumResponseTokens: Int = 256,
        stopSequences: [String] = [], seed: UInt64? = nil, ignoresEndOfSequence: Bool = false,
        prefillChunk: Int? = nil
    ) {
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
        self.minP = minP
        self.repetitionPenalty = repetitionPenalty
        self.maximumResponseTokens = maximumResponseTokens
        self.stopSequences = stopSequences
        self.seed = seed
        self.ignoresEndOfSequence = ignoresEndOfSequence
        self.prefillChunk = prefillChunk
    }

    func bound() throws -> OpenELMBindings.GenerationOptions {
        OpenELMBindings.GenerationOptions(
            maxTokens: try count("maximumResponseTokens", maximumResponseTokens),
            temperature: temperature, topK: try count("topK", topK), topP: topP, minP: minP,
            repetitionPenalty: repetitionPenalty, seed: seed, stop: stopSequences, logprobs: 0,
            prefillChunk: try prefillChunk.map { try count("prefillChunk", $0) },
            ignoreEos: ignoresEndOfSequence)
    }
}

/// A count for the library.
func count(_ name: String, _ value: Int) throws -> UInt64 {
    guard let count = UInt64(exactly: value) else {
        throw OpenELMError.invalidOption(
            name: name, message: "\(name): expected 0 or more, found \(value)")
    }
    return count
}
