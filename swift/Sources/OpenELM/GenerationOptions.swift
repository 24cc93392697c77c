internal import OpenELMBindings

/// Options for text generation. Defaults match the command line: greedy, at most 256 tokens.
///
///     GenerationOptions(samplingMode: .random(top: 40, seed: 7), temperature: 0.8)
public struct GenerationOptions: Sendable, Hashable, Codable {
    /// The sampling mode; `nil` is greedy, or sampling from all tokens if the temperature is above
    /// 0.
    public var samplingMode: SamplingMode?
    /// The sampling temperature: values below 1 favour likely tokens. `nil` is 1 for random
    /// sampling; 0 always picks the most likely token.
    public var temperature: Double?
    /// The maximum number of tokens to generate; `nil` is limited by the model's context only.
    public var maximumResponseTokens: Int?
    /// The number of first tokens that are not the end of the text.
    public var minimumResponseTokens = 0
    /// The penalty on tokens of the prompt and the text; 1 disables it, Apple's OpenELM examples
    /// use 1.2.
    public var repetitionPenalty: Double
    /// The number of last tokens that the repetition penalty considers; `nil` is all.
    public var repetitionContextSize: Int?
    /// Subtracted from the logits of tokens among the last ``presenceContextSize``.
    public var presencePenalty = 0.0
    /// The number of last tokens that the presence penalty considers.
    public var presenceContextSize = 20
    /// Subtracted from the logits of tokens among the last ``frequencyContextSize``, for each
    /// occurrence.
    public var frequencyPenalty = 0.0
    /// The number of last tokens that the frequency penalty considers.
    public var frequencyContextSize = 20
    /// DRY: the penalty on a token that would extend a repeated sequence of tokens; 0 disables it.
    public var dryMultiplier = 0.0
    /// DRY: the base of the penalty, at least 1.
    public var dryBase = 1.75
    /// DRY: the length of the shortest repeated sequence with a penalty, at least 1.
    public var dryAllowedLength = 2
    /// DRY: the number of last tokens in which sequences are searched; `nil` is all.
    public var dryPenaltyLastN: Int?
    /// DRY: strings at which repeated sequences begin anew.
    public var drySequenceBreakers = ["\n", ":", "\"", "*"]
    /// Numbers added to the logits of tokens, by token id; `-.infinity` excludes a token.
    public var logitBias: [UInt32: Float] = [:]
    /// Strings that the text never contains.
    public var bannedStrings: [String] = []
    /// The beginning of the text.
    public var forcedPrefix = ""
    /// Stop strings. The text ends before the first one.
    public var stop: [String]
    /// Continues after the end-of-sequence token.
    public var ignoreEos: Bool
    /// The number of most likely tokens to report with each token; above 0, also the token's own
    /// log-probability.
    public var logprobs = 0
    /// A constraint on the whole text; see ``GenerationGuide``.
    public var guide: GenerationGuide?
    /// The end of a constrained text that reaches its limit.
    public var guideAtLimit = GenerationGuide.AtLimit.stop
    /// The maximum number of tokens copied as drafts from an earlier occurrence of the last tokens,
    /// for texts that repeat their prompt. It changes the time, not the text; 0 disables it.
    public var promptLookup = 0
    /// The kind of the key-value cache.
    public var kvCache = KVCacheOptions()
    /// The treatment of a conversation that does not fit the model's context; sessions only.
    public var contextOverflow = ContextOverflow.error
    /// Prompt tokens per prefill step; `nil` is 128 on a CPU and 512 on a GPU.
    public var prefillChunk: Int?

    /// Creates options. All others have default values and can be set afterwards.
    public init(
        samplingMode: SamplingMode? = nil, temperature: Double? = nil,
        maximumResponseTokens: Int? = 256, repetitionPenalty: Double = 1,
        stop: [String] = [], ignoreEos: Bool = false, prefillChunk: Int? = nil
    ) {
        self.samplingMode = samplingMode
        self.temperature = temperature
        self.maximumResponseTokens = maximumResponseTokens
        self.repetitionPenalty = repetitionPenalty
        self.stop = stop
        self.ignoreEos = ignoreEos
        self.prefillChunk = prefillChunk
    }

    /// Creates options with the former name of `samplingMode`.
    @available(*, deprecated, renamed: "init(samplingMode:temperature:maximumResponseTokens:)")
    public init(
        sampling: SamplingMode?, temperature: Double? = nil, maximumResponseTokens: Int? = 256
    ) {
        self.init(
            samplingMode: sampling, temperature: temperature,
            maximumResponseTokens: maximumResponseTokens)
    }

    /// The former name of ``samplingMode``.
    @available(*, deprecated, renamed: "samplingMode")
    public var sampling: SamplingMode? {
        get { samplingMode }
        set { samplingMode = newValue }
    }

    func ffiOptions() throws -> OpenELMBindings.GenerationOptions {
        let draw = samplingMode?.draw ?? Draw()
        let limit = try maximumResponseTokens.map { try count("maximumResponseTokens", $0) }
        return OpenELMBindings.GenerationOptions(
            maxTokens: limit ?? .max, temperature: Float(usedTemperature),
            topK: try count("top", draw.top), topP: Float(draw.probabilityThreshold),
            minP: Float(draw.minP), typicalP: Float(draw.typicalP),
            topNSigma: Float(draw.topNSigma), xtcProbability: Float(draw.xtcProbability),
            xtcThreshold: Float(draw.xtcThreshold), repetitionPenalty: Float(repetitionPenalty),
            repetitionContextSize: try repetitionContextSize.map {
                try count("repetitionContextSize", $0)
            }, presencePenalty: Float(presencePenalty),
            presenceContextSize: try count("presenceContextSize", presenceContextSize),
            frequencyPenalty: Float(frequencyPenalty),
            frequencyContextSize: try count("frequencyContextSize", frequencyContextSize),
            dryMultiplier: Float(dryMultiplier), dryBase: Float(dryBase),
            dryAllowedLength: try count("dryAllowedLength", dryAllowedLength),
            dryPenaltyLastN: try dryPenaltyLastN.map { try count("dryPenaltyLastN", $0) },
            drySequenceBreakers: drySequenceBreakers, logitBias: logitBias,
            minTokens: try count("minimumResponseTokens", minimumResponseTokens),
            bannedStrings: bannedStrings, forcedPrefix: forcedPrefix, seed: draw.seed, stop: stop,
            logprobs: try count("logprobs", logprobs),
            prefillChunk: try prefillChunk.map { try count("prefillChunk", $0) },
            ignoreEos: ignoreEos, kvCache: try kvCache.ffiOptions(),
            constraint: guide?.constraint, atLimit: guideAtLimit.ffi,
            promptLookup: try count("promptLookup", promptLookup))
    }

    private var usedTemperature: Double {
        switch samplingMode {
        case nil: temperature ?? 0
        // A negative temperature is an error in greedy mode, too.
        case .greedy?: min(temperature ?? 0, 0)
        case _?: temperature ?? 1
        }
    }
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
