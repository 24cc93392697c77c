internal import OpenELMBindings

/// A text as it is generated, piece by piece. Each loop over it starts a new generation, which
/// stops when the loop ends or its task is cancelled.
public struct TextStream: AsyncSequence, Sendable {
    /// A piece of text.
    public typealias Element = String

    let events: GenerationEvents

    /// Starts to generate with the first piece that is requested.
    public func makeAsyncIterator() -> Iterator { Iterator(events: events.makeAsyncIterator()) }

    /// The pieces.
    public struct Iterator: AsyncIteratorProtocol {
        var events: GenerationEvents.Iterator

        /// The next piece; `nil` after the last.
        public mutating func next() async throws -> String? {
            while let event = try await events.next() {
                if case .token(_, let text) = event, !text.isEmpty { return text }
            }
            return nil
        }
    }

    /// The same generation with progress, token ids and statistics.
    public func withEvents() -> GenerationEvents { events }

    /// Generates the whole text.
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
    /// Tokens of the prompt that were read, and all of them.
    case prefill(processed: Int, total: Int)
    /// A token, and the text that it completes, which may be empty.
    case token(id: UInt32, text: String)
    /// The last event.
    case finished(FinishReason, GenerationStats)
}

/// The reason why a text ended.
public enum FinishReason: Sendable, Equatable {
    /// The end-of-sequence token.
    case eos
    /// A stop string.
    case stop
    /// The limit of generated tokens.
    case length
    /// The model's context is full.
    case context
    /// It was cancelled.
    case cancelled
}

/// Counts and times of a generation.
public struct GenerationStats: Sendable, Equatable {
    /// Tokens of the prompt.
    public let promptTokens: Int
    /// Tokens of the prompt that were in the KV cache.
    public let cachedTokens: Int
    /// Generated tokens.
    public let generatedTokens: Int
    /// Seconds to the first token.
    public let prefillSeconds: Double
    /// Seconds from the first token to the last.
    public let decodeSeconds: Double
    /// The seed of the draws.
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

    /// Starts to generate with the first event that is requested.
    public func makeAsyncIterator() -> Iterator { Iterator(events: stream.makeAsyncIterator()) }

    /// The events, one after the other.
    public struct Iterator: AsyncIteratorProtocol {
        var events: EventStream<OpenELMBindings.GenerationStream>.Iterator

        /// The next event; `nil` after the last.
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
