// swift-format-ignore-file
// A stub, see LanguageModel.swift.

public struct LanguageModelExecutorGenerationChannel: AsyncSequence, Sendable {
    public struct Event: Sendable {
        let entryID: String?
        let action: Response.Action
        public static func response(entryID: String? = nil, action: Response.Action) -> Event {
            Event(entryID: entryID, action: action)
        }
    }

    public struct Response: Sendable {
        public struct Action: Sendable {
            enum Kind: Sendable {
                case text(String, tokenCount: Int)
                case usage(Usage)
            }

            let kind: Kind
            public static func appendText(
                _ text: String, segmentID: String? = nil, tokenCount: Int
            ) -> Action {
                Action(kind: .text(text, tokenCount: tokenCount))
            }
            public static func updateUsage(
                input: Usage.Input, output: Usage.Output,
                metadata: [String: any ConvertibleToGeneratedContent] = [:]
            ) -> Action {
                Action(kind: .usage(Usage(input: input, output: output)))
            }
        }
    }

    public struct Usage: Sendable {
        public struct Input: Sendable {
            public var totalTokenCount: Int
            public var cachedTokenCount: Int
            public init(totalTokenCount: Int, cachedTokenCount: Int) {
                self.totalTokenCount = totalTokenCount
                self.cachedTokenCount = cachedTokenCount
            }
        }

        public struct Output: Sendable {
            public var totalTokenCount: Int
            public var reasoningTokenCount: Int
            public init(totalTokenCount: Int, reasoningTokenCount: Int) {
                self.totalTokenCount = totalTokenCount
                self.reasoningTokenCount = reasoningTokenCount
            }
        }

        public var input: Input
        public var output: Output
    }

    private let events: AsyncStream<Event>
    private let continuation: AsyncStream<Event>.Continuation

    init() { (events, continuation) = AsyncStream.makeStream() }

    public func send(_ event: Event) async { continuation.yield(event) }

    func finish() { continuation.finish() }

    public func makeAsyncIterator() -> AsyncStream<Event>.Iterator { events.makeAsyncIterator() }
}
