internal import OpenELMBindings

/// A text that is generated piece by piece. Each loop over it starts a new generation, which stops
/// when the loop ends or its task is cancelled.
public struct TextStream: AsyncSequence, Sendable {
    /// A piece of text.
    public typealias Element = String

    let events: GenerationEvents

    /// Creates an iterator; generation starts with the first requested piece.
    public func makeAsyncIterator() -> Iterator { Iterator(events: events.makeAsyncIterator()) }

    /// An iterator over the pieces.
    public struct Iterator: AsyncIteratorProtocol {
        var events: GenerationEvents.Iterator

        /// Returns the next piece, or `nil` after the last one.
        public mutating func next() async throws -> String? { try await next(isolation: nil) }

        /// Returns the next piece, or `nil` after the last one, to the caller's actor: the iterator
        /// may be a property of a `@MainActor` type.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws -> String? {
            while let event = try await events.next(isolation: actor) {
                if case .token(let token) = event, !token.text.isEmpty { return token.text }
            }
            return nil
        }
    }

    /// The same generation as snapshots: each is the complete text so far.
    public var snapshots: TextSnapshots { TextSnapshots(stream: self) }

    /// The same generation as events with progress, token ids and statistics.
    public func withEvents() -> GenerationEvents { events }

    /// Generates the complete text.
    public func collect() async throws -> LanguageModelSession.Response {
        var content = ""
        for try await event in events {
            switch event {
            case .prefill: break
            case .token(let token): content += token.text
            case .finished(let reason, let stats):
                return LanguageModelSession.Response(
                    content: content, finishReason: reason, stats: stats)
            }
        }
        throw OpenELMError.unexpected(message: "the generation ended without a last event")
    }
}

/// An event of a generation.
public enum GenerationEvent: Sendable, Hashable {
    /// The numbers of processed prompt tokens and of all prompt tokens.
    case prefill(processed: Int, total: Int)
    /// A generated token.
    case token(GeneratedToken)
    /// The last event.
    case finished(FinishReason, GenerationStats)
}

/// A generated token.
public struct GeneratedToken: Sendable, Hashable {
    /// The token's id.
    public let id: UInt32
    /// The text that the token completes, possibly empty.
    public let text: String
    /// The model's log-probability of the token, before penalties and temperature; `nil` unless
    /// ``GenerationOptions/logprobs`` is above 0.
    public let logprob: Float?
    /// The most likely tokens, most likely first.
    public let topLogprobs: [TokenLogprob]
}

/// A token and its log-probability.
public struct TokenLogprob: Sendable, Hashable {
    /// The token's id.
    public let id: UInt32
    /// The model's log-probability of the token, before penalties and temperature.
    public let logprob: Float
}

/// The texts of a generation so far; see ``TextStream/snapshots``.
public struct TextSnapshots: AsyncSequence, Sendable {
    /// The text so far.
    public typealias Element = String

    let stream: TextStream

    /// Creates an iterator; generation starts with the first requested snapshot.
    public func makeAsyncIterator() -> Iterator { Iterator(pieces: stream.makeAsyncIterator()) }

    /// An iterator over the snapshots.
    public struct Iterator: AsyncIteratorProtocol {
        var pieces: TextStream.Iterator
        var text = ""

        /// Returns the next snapshot, or `nil` after the last one.
        public mutating func next() async throws -> String? { try await next(isolation: nil) }

        /// Returns the next snapshot, or `nil` after the last one, to the caller's actor.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws -> String? {
            guard let piece = try await pieces.next(isolation: actor) else { return nil }
            text += piece
            return text
        }
    }
}

/// The reason why a generation ended.
public enum FinishReason: String, Sendable, Codable, CaseIterable {
    /// The end-of-sequence token.
    case eos
    /// A stop string.
    case stop
    /// The limit of generated tokens.
    case length
    /// The model's context is full.
    case context
    /// The generation was cancelled.
    case cancelled
}

/// Counts and times of a generation.
public struct GenerationStats: Sendable, Hashable, Codable {
    /// Tokens in the prompt.
    public let promptTokens: Int
    /// Prompt tokens found in the KV cache.
    public let cachedTokens: Int
    /// Generated tokens.
    public let generatedTokens: Int
    /// Drafts that the model verified.
    public let draftedTokens: Int
    /// Drafts that became tokens of the text.
    public let acceptedTokens: Int
    /// Seconds until the first token.
    public let prefillSeconds: Double
    /// Seconds from the first token to the last.
    public let decodeSeconds: Double
    /// The random seed.
    public let seed: UInt64

    /// Tokens generated per second after the first.
    public var tokensPerSecond: Double {
        decodeSeconds > 0 ? Double(generatedTokens - 1) / decodeSeconds : 0
    }

    /// Prompt tokens read per second, without those found in the KV cache.
    public var promptTokensPerSecond: Double {
        prefillSeconds > 0 ? Double(promptTokens - cachedTokens) / prefillSeconds : 0
    }
}

/// The events of a generation; see ``TextStream``.
public struct GenerationEvents: AsyncSequence, Sendable {
    /// An event.
    public typealias Element = GenerationEvent

    let stream: EventStream<OpenELMBindings.GenerationStream>

    init(_ start: @escaping @Sendable () throws -> OpenELMBindings.GenerationStream) {
        stream = EventStream(start: start)
    }

    /// Creates an iterator; generation starts with the first requested event.
    public func makeAsyncIterator() -> Iterator { Iterator(events: stream.makeAsyncIterator()) }

    /// An iterator over the events.
    public struct Iterator: AsyncIteratorProtocol {
        var events: EventStream<OpenELMBindings.GenerationStream>.Iterator

        /// Returns the next event, or `nil` after the last one.
        public mutating func next() async throws -> GenerationEvent? {
            try await next(isolation: nil)
        }

        /// Returns the next event, or `nil` after the last one, to the caller's actor.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws -> GenerationEvent? {
            try await events.next(isolation: actor).map(GenerationEvent.init)
        }
    }
}

extension GenerationEvent {
    init(_ event: OpenELMBindings.GenerationEvent) {
        switch event {
        case .prefill(let processed, let total):
            self = .prefill(processed: Int(processed), total: Int(total))
        case .token(let id, let text, let logprob, let top):
            self = .token(
                GeneratedToken(
                    id: id, text: text, logprob: logprob,
                    topLogprobs: top.map { TokenLogprob(id: $0.id, logprob: $0.logprob) }))
        case .finished(let reason, let stats):
            let end: FinishReason =
                switch reason {
                case .eos: .eos
                case .stop: .stop
                case .length: .length
                case .context: .context
                case .cancelled: .cancelled
                }
            self = .finished(
                end,
                GenerationStats(
                    promptTokens: Int(stats.promptTokens), cachedTokens: Int(stats.cachedTokens),
                    generatedTokens: Int(stats.generatedTokens),
                    draftedTokens: Int(stats.draftedTokens),
                    acceptedTokens: Int(stats.acceptedTokens),
                    prefillSeconds: stats.prefillSeconds, decodeSeconds: stats.decodeSeconds,
                    seed: stats.seed))
        }
    }
}
