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
        public mutating func next() async throws -> String? {
            while let event = try await events.next() {
                if case .token(_, let text) = event, !text.isEmpty { return text }
            }
            return nil
        }
    }

    /// The same generation as events with progress, token ids and statistics.
    public func withEvents() -> GenerationEvents { events }

    /// Generates the complete text.
    public func collect() async throws -> LanguageModelSession.Response {
        var content = ""
        for try await event in events {
            switch event {
            case .prefill: break
            case .token(_, let text): content += text
            case .finished(let reason, let stats):
                return LanguageModelSession.Response(
                    content: content, finishReason: reason, stats: stats)
            }
        }
        throw OpenELMError.unexpected(message: "the generation ended without a last event")
    }
}

/// An event of a generation.
public enum GenerationEvent: Sendable, Equatable {
    /// The numbers of processed prompt tokens and of all prompt tokens.
    case prefill(processed: Int, total: Int)
    /// A token and the text that it completes, possibly empty.
    case token(id: UInt32, text: String)
    /// The last event.
    case finished(FinishReason, GenerationStats)
}

/// The reason why a generation ended.
public enum FinishReason: Sendable, Equatable {
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
public struct GenerationStats: Sendable, Equatable {
    /// Tokens in the prompt.
    public let promptTokens: Int
    /// Prompt tokens found in the KV cache.
    public let cachedTokens: Int
    /// Generated tokens.
    public let generatedTokens: Int
    /// Seconds until the first token.
    public let prefillSeconds: Double
    /// Seconds from the first token to the last.
    public let decodeSeconds: Double
    /// The random seed.
    public let seed: UInt64
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
            try await events.next().map(GenerationEvent.init)
        }
    }
}

extension GenerationEvent {
    init(_ event: OpenELMBindings.GenerationEvent) {
        switch event {
        case .prefill(let processed, let total):
            self = .prefill(processed: Int(processed), total: Int(total))
        case .token(let id, let text, _, _): self = .token(id: id, text: text)
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
                    prefillSeconds: stats.prefillSeconds, decodeSeconds: stats.decodeSeconds,
                    seed: stats.seed))
        }
    }
}
