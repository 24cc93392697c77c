internal import OpenELMBindings

/// A continuation to score after a context.
public struct ScoreRequest: Sendable, Hashable, Codable {
    /// The text before the continuation; it may be empty.
    public var context: String
    /// The text to score.
    public var continuation: String

    /// Creates a request.
    public init(context: String = "", continuation: String) {
        self.context = context
        self.continuation = continuation
    }
}

/// The log-likelihood of a continuation after its context, as in lm-eval.
public struct LogLikelihood: Sendable, Hashable, Codable {
    /// The sum of the tokens' log-probabilities, in nats.
    public let sum: Double
    /// A Boolean value that is true if greedy decoding gives the continuation.
    public let isGreedy: Bool
    /// The continuation's tokens.
    public let tokens: [UInt32]
    /// The log-probability of each token, in nats.
    public let tokenLogprobs: [Float]
    /// The number of tokens removed from the beginning of the context, because the text is longer
    /// than the model's context.
    public let truncated: Int
}

/// The perplexity of texts, over all their tokens.
public struct Perplexity: Sendable, Hashable, Codable {
    /// The number of texts.
    public let texts: Int
    /// The number of scored tokens.
    public let tokens: Int
    /// The length of the texts in UTF-8, in bytes.
    public let bytes: Int
    /// Nats per token.
    public let natsPerToken: Double
    /// The exponential of the nats per token.
    public let perplexity: Double
    /// Bits per byte of text.
    public let bitsPerByte: Double
}

extension LanguageModel {
    /// Returns the log-likelihood of `continuation` after `context`, with the active adapters.
    public func logLikelihood(
        of continuation: String, after context: String = ""
    ) async throws -> LogLikelihood {
        let request = ScoreRequest(context: context, continuation: continuation)
        guard let scored = try await logLikelihoods(of: [request]).first else {
            throw OpenELMError.unexpected(message: "a request without a result")
        }
        return scored
    }

    /// Returns the log-likelihoods of `requests`, in order. Requests with one context that follow
    /// each other share its computation.
    public func logLikelihoods(of requests: [ScoreRequest]) async throws -> [LogLikelihood] {
        let requests = requests.map {
            OpenELMBindings.ScoreRequest(context: $0.context, continuation: $0.continuation)
        }
        let model = self.model
        let scored = try await cancellable {
            try await model.logLikelihoods(requests: requests, cancellation: $0)
        }
        return scored.map {
            LogLikelihood(
                sum: $0.sum, isGreedy: $0.isGreedy, tokens: $0.tokens,
                tokenLogprobs: $0.tokenLogprobs, truncated: Int(clamping: $0.truncated))
        }
    }

    /// Returns the perplexity of `texts`, with the active adapters. Texts longer than the model's
    /// context are scored in parts.
    public func perplexity(of texts: [String]) async throws -> Perplexity {
        let model = self.model
        let found = try await cancellable {
            try await model.perplexity(texts: texts, cancellation: $0)
        }
        return Perplexity(
            texts: Int(clamping: found.texts), tokens: Int(clamping: found.tokens),
            bytes: Int(clamping: found.bytes), natsPerToken: found.natsPerToken,
            perplexity: found.perplexity, bitsPerByte: found.bitsPerByte)
    }
}

/// Runs a call of the library, which ends if the task is cancelled.
private func cancellable<T: Sendable>(
    _ call: @Sendable (Cancellation) async throws -> T
) async throws -> T {
    let cancellation = try translated { try newCancellation() }
    return try await withCancellationHandler {
        try await translated { try await call(cancellation) }
    } onCancel: {
        try? cancellation.cancel()
    }
}
