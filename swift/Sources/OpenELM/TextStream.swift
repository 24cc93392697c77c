internal import OpenELMBindings

/// A text as it is generated, piece by piece. Cold: each loop over it generates anew, and stops as
/// soon as the loop ends or its task is cancelled.
public struct TextStream: AsyncSequence, Sendable {
    /// A piece of text.
    public typealias Element = String

    let events: GenerationEvents

    /// Begins to generate with the first piece that is asked for.
    public func makeAsyncIterator() -> Iterator { Iterator(events: events.makeAsyncIterator()) }

    /// The pieces.
    public struct Iterator: AsyncIteratorProtocol {
        var events: GenerationEvents.Iterator

        /// The next piece; `nil` after the last.
        public mutating func next() async throws -> String? {
            while let event = try await events.next() {
                if case .text(let text, _) = event, !text.isEmpty { return text }
            }
            return nil
        }
    }

    /// The same with progress, token ids and statistics.
    public func withEvents() -> GenerationEvents { events }

    /// Generates all of it.
    public func collect() async throws -> LanguageModelSession.Response {
        var content = ""
        for try await event in events {
            switch event {
            case .prompt: break
            case .text(let text, _): content += text
            case .finished(let reason, let statistics):
                return LanguageModelSession.Response(
                    content: content, finishReason: reason, statistics: statistics)
            }
        }
        throw OpenELMError.unexpected(message: "the text came to no end")
    }
}

/// What a generation tells.
public enum GenerationEvent: Sendable, Equatable {
    /// Tokens of the prompt that were read, of all.
    case prompt(processed: Int, total: Int)
    /// Text that became certain with a token; it may be empty.
    case text(String, token: UInt32)
    /// The last event.
    case finished(FinishReason, GenerationStatistics)
}

/// Why a text ended.
public enum FinishReason: Sendable, Equatable {
    /// The model ended it.
    case endOfSequence
    /// A stop sequence came up.
    case stopSequence
    /// The most tokens were generated.
    case maximumResponseTokens
    /// The model's context is full.
    case contextWindow
    /// It was cancelled.
    case cancelled
}

/// Counts and times of a generation.
public struct GenerationStatistics: Sendable, Equatable {
    /// Tokens of the prompt.
    public let promptTokens: Int
    /// Those of them that had been read before.
    public let cachedTokens: Int
    /// Tokens that were generated.
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

    /// Begins to generate with the first event that is asked for.
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
            self = .prompt(processed: Int(processed), total: Int(total))
        case .token(let id, let text, _, _): self = .text(text, token: id)
        case .finished(let reason, let stats):
            let why: FinishReason =
                switch reason {
                case .eos: .endOfSequence
                case .stop: .stopSequence
                case .length: .maximumResponseTokens
                case .context: .contextWindow
                case .cancelled: .cancelled
                }
            self = .finished(
                why,
                GenerationStatistics(
                    promptTokens: Int(stats.promptTokens), cachedTokens: Int(stats.cachedTokens),
                    generatedTokens: Int(stats.generatedTokens),
                    prefillSeconds: stats.prefillSeconds, decodeSeconds: stats.decodeSeconds,
                    seed: stats.seed))
        }
    }
}
