// swift-format-ignore-file
// A stub, see LanguageModel.swift: a session that calls an executor as Apple's documentation says.
import Foundation
import Synchronization

// Apple's has arguments and an output.
public protocol Tool: Sendable {
    var name: String { get }
    var description: String { get }
}

public final class LanguageModelSession: Sendable {
    public struct Response<Content: Sendable>: Sendable {
        public let content: Content
        public let rawContent: String
        public let transcriptEntries: [Transcript.Entry]
        public let usage: Usage
    }

    public struct Usage: Sendable, Equatable {
        public var inputTokens = 0
        public var cachedTokens = 0
        public var outputTokens = 0
        /// Stub only: the sum of the events' token counts.
        public var streamedTokens = 0
    }

    public struct ResponseStream<Content: Sendable>: AsyncSequence, Sendable {
        public struct Snapshot: Sendable {
            public var content: Content
        }

        let snapshots: AsyncThrowingStream<Snapshot, any Swift.Error>

        public func makeAsyncIterator() -> AsyncThrowingStream<Snapshot, any Swift.Error>.Iterator {
            snapshots.makeAsyncIterator()
        }
    }

    public enum Error: Swift.Error {
        case concurrentRequests
    }

    private struct State: Sendable {
        var transcript: Transcript
        var isResponding = false
    }

    private let state: Mutex<State>
    private let capabilities: @Sendable () -> LanguageModelCapabilities
    private let tools: [any Tool]
    private let warm: @Sendable (Transcript) throws -> Void
    private let run:
        @Sendable (
            LanguageModelExecutorGenerationRequest, LanguageModelExecutorGenerationChannel
        ) async throws -> Void

    public convenience init(
        model: some LanguageModel, tools: [any Tool] = [], instructions: String? = nil
    ) {
        let entries = instructions.map {
            [
                Transcript.Entry.instructions(
                    .init(segments: [.text(.init(content: $0))], toolDefinitions: []))
            ]
        }
        self.init(model: model, tools: tools, transcript: Transcript(entries: entries ?? []))
    }

    public init(model: some LanguageModel, tools: [any Tool] = [], transcript: Transcript) {
        state = Mutex(State(transcript: transcript))
        self.tools = tools
        capabilities = { model.capabilities }
        warm = { try Executors.shared.executor(of: model).prewarm(model: model, transcript: $0) }
        run = { request, channel in
            try await Executors.shared.executor(of: model)
                .respond(to: request, model: model, streamingInto: channel)
        }
    }

    public var transcript: Transcript { state.withLock { $0.transcript } }
    public var isResponding: Bool { state.withLock { $0.isResponding } }

    public func prewarm() { try? warm(transcript) }

    @discardableResult public func respond(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> Response<String> {
        try await answer(prompt, schema: nil, options: options) { _ in }
    }

    @discardableResult public func respond(
        to prompt: String, schema: GenerationSchema,
        options: GenerationOptions = GenerationOptions(),
        contextOptions: ContextOptions = ContextOptions(includeSchemaInPrompt: true)
    ) async throws -> Response<GeneratedContent> {
        let response = try await answer(
            prompt, schema: schema, options: options, contextOptions: contextOptions
        ) { _ in }
        return Response(
            content: try GeneratedContent(json: response.content), rawContent: response.content,
            transcriptEntries: response.transcriptEntries, usage: response.usage)
    }

    public func streamResponse(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> ResponseStream<String> {
        ResponseStream(
            snapshots: AsyncThrowingStream { continuation in
                let task = Task {
                    do {
                        _ = try await answer(prompt, schema: nil, options: options) {
                            continuation.yield(.init(content: $0))
                        }
                        continuation.finish()
                    } catch {
                        continuation.finish(throwing: error)
                    }
                }
                continuation.onTermination = { _ in task.cancel() }
            })
    }

    /// A failed or cancelled answer is removed with its prompt.
    private func answer(
        _ text: String, schema: GenerationSchema?, options: GenerationOptions,
        contextOptions: ContextOptions = ContextOptions(),
        snapshot: @escaping @Sendable (String) -> Void
    ) async throws -> Response<String> {
        try check(.toolCalling, isUsed: !tools.isEmpty)
        try check(.guidedGeneration, isUsed: schema != nil)
        let prompt = Transcript.Entry.prompt(
            .init(segments: [.text(.init(content: text))], options: options))
        let before = try state.withLock { state in
            if state.isResponding { throw Error.concurrentRequests }
            state.isResponding = true
            let before = state.transcript
            state.transcript.append(prompt)
            return before
        }
        defer { state.withLock { $0.isResponding = false } }
        do {
            let request = LanguageModelExecutorGenerationRequest(
                id: UUID(), transcript: transcript,
                enabledToolDefinitions: tools.map {
                    .init(name: $0.name, description: $0.description)
                },
                schema: schema, generationOptions: options, contextOptions: contextOptions,
                metadata: [:])
            let (content, usage) = try await events(of: request, snapshot: snapshot)
            let segment: Transcript.Segment =
                if schema != nil {
                    .structure(.init(schemaName: "", content: try GeneratedContent(json: content)))
                } else { .text(.init(content: content)) }
            let entry = Transcript.Entry.response(.init(assetIDs: [], segments: [segment]))
            state.withLock { $0.transcript.append(entry) }
            return Response(
                content: content, rawContent: content, transcriptEntries: [prompt, entry],
                usage: usage)
        } catch {
            state.withLock { $0.transcript = before }
            throw error
        }
    }

    private func events(
        of request: LanguageModelExecutorGenerationRequest,
        snapshot: @escaping @Sendable (String) -> Void
    ) async throws -> (String, Usage) {
        let channel = LanguageModelExecutorGenerationChannel()
        let run = self.run
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                defer { channel.finish() }
                try await run(request, channel)
            }
            var content = ""
            var usage = Usage()
            for await event in channel {
                switch event.action.kind {
                case .text(let text, let tokens):
                    content += text
                    usage.streamedTokens += tokens
                    snapshot(content)
                case .usage(let totals):
                    usage.inputTokens = totals.input.totalTokenCount
                    usage.cachedTokens = totals.input.cachedTokenCount
                    usage.outputTokens = totals.output.totalTokenCount
                }
            }
            try await group.waitForAll()
            try Task.checkCancellation()
            return (content, usage)
        }
    }

    private func check(_ capability: LanguageModelCapabilities.Capability, isUsed: Bool) throws {
        guard isUsed, !capabilities().contains(capability) else { return }
        throw LanguageModelError.unsupportedCapability(
            .init(capability: capability, debugDescription: "the model lacks \(capability.name)"))
    }
}

/// One executor for each configuration, kept until the process ends.
private final class Executors: Sendable {
    static let shared = Executors()

    private struct Key: Hashable, @unchecked Sendable {
        let type: ObjectIdentifier
        let configuration: AnyHashable
    }

    private let executors = Mutex<[Key: any Sendable]>([:])

    func executor<Model: LanguageModel>(of model: Model) throws -> Model.Executor {
        let configuration = model.executorConfiguration
        let key = Key(type: ObjectIdentifier(Model.self), configuration: AnyHashable(configuration))
        return try executors.withLock { executors in
            if let executor = executors[key] as? Model.Executor { return executor }
            let executor = try Model.Executor(configuration: configuration)
            executors[key] = executor
            return executor
        }
    }
}
