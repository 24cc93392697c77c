import Foundation
import FoundationModels
import OpenELM
import Testing

private typealias Session = FoundationModels.LanguageModelSession
private typealias Options = FoundationModels.GenerationOptions

/// The executor, called by a stub of FoundationModels' session.
@Suite(.serialized) struct FoundationModelsTests {
    private static let folder = URL(
        filePath: ProcessInfo.processInfo.environment["OPENELM_MODEL"] ?? "")
    private static let short = Options(maximumResponseTokens: 12)

    private func load() async throws -> (OpenELM.LanguageModel, OpenELMLanguageModel) {
        let model = try await OpenELM.LanguageModel(folder: Self.folder)
        return (model, OpenELMLanguageModel(model, template: .plain))
    }

    @Test func answersAndStreamsSnapshots() async throws {
        let (plain, model) = try await load()
        let expected = try await plain.generate(
            "Once upon a time", options: .init(maximumResponseTokens: 12))
        let response = try await Session(model: model)
            .respond(to: "Once upon a time", options: Self.short)
        #expect(response.content == expected && !expected.isEmpty)
        #expect(response.usage.outputTokens == 12)
        // With BOS.
        let prompt = try plain.encode("Once upon a time")
        #expect(response.usage.inputTokens == prompt.count + 1)

        let session = Session(model: model)
        var snapshots: [String] = []
        for try await snapshot in session.streamResponse(
            to: "Once upon a time", options: Self.short)
        {
            snapshots.append(snapshot.content)
        }
        #expect(snapshots.count > 3 && snapshots.last == expected)
        #expect(zip(snapshots, snapshots.dropFirst()).allSatisfy { $1.hasPrefix($0) })
        #expect(session.transcript.count == 2 && !session.isResponding)
    }

    @Test func loadsAFolder() async throws {
        let progress = Counter()
        let model = try await OpenELMLanguageModel(folder: Self.folder, template: .plain) {
            if $0 == 1 { progress.add() }
        }
        #expect(progress.value > 0)
        let session = Session(model: model, instructions: "A tale.")
        #expect(try await !session.respond(to: "A fox", options: Self.short).content.isEmpty)
    }

    /// The second turn reads its own prompt and the last token of the first answer, and has the
    /// same text as this package's session.
    @Test func continuesWithTheCacheOfTheTurnBefore() async throws {
        let (plain, model) = try await load()
        let session = Session(model: model, instructions: "A tale.")
        let ours = try OpenELM.LanguageModelSession(
            model: plain, instructions: "A tale.", template: .plain)
        var before = 0
        for prompt in ["The king", " and the fox", " went home"] {
            let response = try await session.respond(to: prompt, options: Self.short)
            let expected = try await ours.respond(
                to: prompt, options: .init(maximumResponseTokens: 12))
            #expect(response.content == expected.content)
            #expect(response.usage.inputTokens == expected.stats.promptTokens)
            if before > 0 { #expect(response.usage.cachedTokens >= before - 2) }
            before = response.usage.inputTokens + response.usage.outputTokens
        }
    }

    @Test func sessionsOfOneModelDoNotMix() async throws {
        let (_, model) = try await load()
        let prompts = ["The king", "A fox", "Once upon a time", "The bear"]
        var expected: [String] = []
        for prompt in prompts {
            let session = Session(model: model)
            expected.append(try await session.respond(to: prompt, options: Self.short).content)
            expected.append(try await session.respond(to: " and", options: Self.short).content)
        }
        let found = try await withThrowingTaskGroup(of: (Int, [String]).self) { group in
            for (index, prompt) in prompts.enumerated() {
                group.addTask {
                    let session = Session(model: model)
                    let first = try await session.respond(to: prompt, options: Self.short)
                    let second = try await session.respond(to: " and", options: Self.short)
                    return (index, [first.content, second.content])
                }
            }
            return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
        #expect(prompts.indices.flatMap { found[$0] ?? [] } == expected)
    }

    @Test func mapsOptions() async throws {
        let (plain, model) = try await load()
        let cases: [(Options, OpenELM.GenerationOptions)] = [
            (Options(samplingMode: .greedy, temperature: 3), .init()),
            (
                Options(samplingMode: .random(top: 5, seed: 7)),
                .init(samplingMode: .random(top: 5, seed: 7))
            ),
            (
                Options(
                    samplingMode: .random(probabilityThreshold: 0.8, seed: 3), temperature: 1.5),
                .init(
                    samplingMode: .random(probabilityThreshold: 0.8, seed: 3), temperature: 1.5)
            ),
        ]
        var texts: Set<String> = []
        for (options, expected) in cases {
            var (options, expected) = (options, expected)
            (options.maximumResponseTokens, expected.maximumResponseTokens) = (20, 20)
            let response = try await Session(model: model).respond(to: "The king", options: options)
            #expect(
                try await response.content == plain.generate("The king", options: expected))
            texts.insert(response.content)
        }
        #expect(texts.count == cases.count)
    }

    @Test func usesTheModelsOptionsWhereARequestHasNone() async throws {
        let (plain, _) = try await load()
        let options = OpenELM.GenerationOptions(
            samplingMode: .random(seed: 5), maximumResponseTokens: 9, repetitionPenalty: 1.2)
        let model = OpenELMLanguageModel(plain, template: .plain, options: options)
        let response = try await Session(model: model).respond(to: "The king")
        #expect(try await response.content == plain.generate("The king", options: options))
        #expect(response.usage.outputTokens == 9)
        let greedy = try await Session(model: model)
            .respond(to: "The king", options: Options(samplingMode: .greedy))
        #expect(greedy.content != response.content)
        #expect(greedy.usage.outputTokens == 9)
    }

    @Test func reportsAFullContext() async throws {
        let (plain, model) = try await load()
        let context = try plain.contextSize
        let session = Session(model: model)
        try await session.respond(to: "A fox", options: Self.short)
        let long = String(repeating: "the king and the fox ", count: context)
        let tooLong = await contextError {
            try await session.respond(to: long, options: Self.short)
        }
        #expect(tooLong?.contextSize == context)
        #expect((tooLong?.tokenCount ?? 0) > context)
        #expect(tooLong?.debugDescription.contains("\(context)") == true)
        // The session continues with a shorter prompt.
        #expect(session.transcript.count == 2)
        try await session.respond(to: " and", options: Self.short)

        // The context is full before the answer ends.
        let endless = OpenELMLanguageModel(
            plain, template: .plain,
            options: .init(maximumResponseTokens: nil, ignoreEos: true))
        let most = String(repeating: "the ", count: context - 20)
        let full = await contextError { try await Session(model: endless).respond(to: most) }
        #expect(full?.contextSize == context)
        #expect((full?.tokenCount ?? 0) >= context)
    }

    @Test func refusesCapabilitiesThatItLacks() async throws {
        struct Clock: Tool {
            let name = "clock"
            let description = "The time."
        }
        let (_, model) = try await load()
        #expect(!model.capabilities.contains(.toolCalling))
        #expect(!model.capabilities.contains(.vision))
        let checked = await failure {
            try await Session(model: model, tools: [Clock()]).respond(to: "The time")
        }
        #expect(isUnsupported(checked, .toolCalling))

        // Without the session's check.
        let executor = try OpenELMLanguageModel.Executor(
            configuration: model.executorConfiguration)
        let unchecked = Unchecked(model: model, executor: executor)
        let error = await failure {
            try await Session(model: unchecked, tools: [Clock()]).respond(to: "The time")
        }
        #expect(isUnsupported(error, .toolCalling))
    }

    /// JSON of the schema if the options have a guide, and an error otherwise.
    @Test func answersWithJSONOfASchema() async throws {
        let (_, model) = try await load()
        let schema = try FoundationModels.GenerationSchema(
            stub:
                #"{"type":"object","properties":{"a":{"enum":["x","y"]}},"required":["a"],"additionalProperties":false}"#
        )
        #expect(model.capabilities.contains(.guidedGeneration))
        let session = Session(model: model)
        let response = try await session.respond(to: "A fox", schema: schema)
        let found = try JSONDecoder().decode(
            [String: String].self, from: Data(response.rawContent.utf8))
        #expect(found == ["a": "x"] || found == ["a": "y"])
        let bare = try await Session(model: model).respond(
            to: "A fox", schema: schema,
            contextOptions: ContextOptions(includeSchemaInPrompt: false))
        #expect(bare.usage.inputTokens < response.usage.inputTokens)
        // The transcript has a structure, and continues.
        let next = try await session.respond(to: "A bear", options: Self.short)
        #expect(next.usage.inputTokens > bare.usage.inputTokens)

        let malformed = try FoundationModels.GenerationSchema(stub: #"{"type":"no such type"}"#)
        let error = await failure { try await session.respond(to: "A fox", schema: malformed) }
        guard case LanguageModelError.unsupportedGenerationGuide? = error else {
            Issue.record("failed with \(String(describing: error))")
            return
        }
    }

    struct Animal: Generable, Sendable {
        let name: String

        static var generationSchema: FoundationModels.GenerationSchema {
            get throws {
                try FoundationModels.GenerationSchema(
                    stub:
                        #"{"type":"object","properties":{"a":{"enum":["x","y"]}},"required":["a"],"additionalProperties":false}"#
                )
            }
        }
        init(_ content: GeneratedContent) throws {
            let values = try JSONDecoder().decode(
                [String: String].self, from: Data(content.jsonString.utf8))
            name = values["a"] ?? ""
        }
    }

    /// The package's own session, with a type of FoundationModels.
    @Test func aSessionAnswersWithAGenerableType() async throws {
        let (loaded, _) = try await load()
        let session = try OpenELM.LanguageModelSession(model: loaded)
        let answer = try await session.respond(to: "A fox", generating: Animal.self)
        #expect(["x", "y"].contains(answer.content.name))
    }

    @Test func refusesTranscriptsWithOtherContent() async throws {
        let (_, model) = try await load()
        let prompt = Transcript.Entry.prompt(.init(segments: [.text(.init(content: "A fox"))]))
        let output = Transcript.Entry.toolOutput(.init(id: "1", toolName: "clock", segments: []))
        let image = Transcript.Entry.prompt(
            .init(segments: [.text(.init(content: "A fox")), .attachment(.init())]))
        let response = Transcript.Entry.response(
            .init(assetIDs: [], segments: [.text(.init(content: "A bear"))]))
        let cases: [([Transcript.Entry], Transcript.Entry)] = [
            ([prompt, output], output), ([image], image), ([response], response),
        ]
        for (entries, unsupported) in cases {
            let session = Session(model: model, transcript: Transcript(entries: entries))
            let error = await failure {
                try await session.respond(to: "The king", options: Self.short)
            }
            guard case LanguageModelError.unsupportedTranscriptContent(let content)? = error else {
                Issue.record("failed with \(String(describing: error))")
                continue
            }
            #expect(content.unsupportedContent == [unsupported])
            #expect(content.debugDescription.hasPrefix("expected "))
        }
    }

    @Test func continuesARestoredTranscript() async throws {
        let (plain, model) = try await load()
        let text = { Transcript.Segment.text(.init(content: $0)) }
        let structure = Transcript.Segment.structure(
            .init(schemaName: "Animal", content: try GeneratedContent(json: #"{"name":"fox"}"#)))
        let transcript = Transcript(entries: [
            .instructions(.init(segments: [text("A tale."), text("Short.")], toolDefinitions: [])),
            .prompt(.init(segments: [text("The king")])),
            .reasoning(.init(segments: [text("hm")])),
            .response(.init(assetIDs: [], segments: [structure])),
            .prompt(.init(segments: [text("The bear")])),
        ])
        let response = try await Session(model: model, transcript: transcript)
            .respond(to: "A fox", options: Self.short)
        let ours = try OpenELM.LanguageModelSession(
            model: plain,
            transcript: [
                .init(role: .instructions, text: "A tale.\nShort."),
                .init(role: .prompt, text: "The king"),
                .init(role: .response, text: #"{"name":"fox"}"#),
                .init(role: .prompt, text: "The bear"), .init(role: .response, text: ""),
            ], template: .plain)
        let expected = try await ours.respond(
            to: "A fox", options: .init(maximumResponseTokens: 12))
        #expect(response.content == expected.content)
        #expect(response.usage.inputTokens == expected.stats.promptTokens)
    }

    @Test(.timeLimit(.minutes(1))) func stopsWithItsTask() async throws {
        let (plain, _) = try await load()
        let model = OpenELMLanguageModel(
            plain, template: .plain, options: .init(maximumResponseTokens: nil, ignoreEos: true))
        let session = Session(model: model)
        let pieces = Counter()
        let task = Task {
            for try await _ in session.streamResponse(to: "A fox") { pieces.add() }
        }
        while pieces.value < 3 { await Task.yield() }
        task.cancel()
        _ = await task.result
        while session.isResponding { await Task.yield() }
        #expect(session.transcript.isEmpty)

        let answer = Task { try await session.respond(to: "A fox") }
        while !session.isResponding { await Task.yield() }
        answer.cancel()
        #expect(await failure { try await answer.value } is CancellationError)
        // The model and the session are free.
        let response = try await session.respond(to: "A fox", options: Self.short)
        #expect(response.usage.outputTokens == 12)
    }

    @Test func prewarmsForTheNextRequest() async throws {
        let (_, model) = try await load()
        let expected = try await Session(model: model, instructions: "A tale.")
            .respond(to: "The king", options: Self.short)
        let session = Session(model: model, instructions: "A tale.")
        session.prewarm()
        let response = try await session.respond(to: "The king", options: Self.short)
        #expect(response.content == expected.content)
    }

    @Test func passesOtherErrorsOn() async throws {
        let (plain, model) = try await load()
        let session = Session(model: model)
        let invalid = Options(samplingMode: .random(probabilityThreshold: 2))
        guard
            case OpenELMError.invalidOption("probabilityThreshold", _)? = await failure({
                try await session.respond(to: "A fox", options: invalid)
            }),
            case OpenELMError.invalidOption? = await failure({
                try await session.respond(to: "", options: Self.short)
            })
        else {
            Issue.record("expected invalid options")
            return
        }
        try await plain.unload()
        let unloaded = await failure { try await session.respond(to: "A fox") }
        #expect(unloaded as? OpenELMError == .unloaded)
    }

    @Test func anEmptyAnswerIsAnEntry() async throws {
        let (_, model) = try await load()
        let session = Session(model: model)
        let response = try await session.respond(
            to: "A fox", options: Options(maximumResponseTokens: 0))
        #expect(response.content.isEmpty && session.transcript.count == 2)
        #expect(response.usage.inputTokens > 0)
        #expect(try await !session.respond(to: "A fox", options: Self.short).content.isEmpty)
    }

    /// FoundationModels keeps executors; they keep no model.
    @Test(.timeLimit(.minutes(1))) func releasesTheModel() async throws {
        weak var released: OpenELM.LanguageModel?
        do {
            let (plain, model) = try await load()
            released = plain
            try await Session(model: model).respond(to: "A fox", options: Self.short)
            #expect(released != nil)
        }
        while released != nil { await Task.yield() }
    }
}

// `#expect(throws:)` with these closures crashes the compiler of Swift 6.0.
private func failure(_ body: () async throws -> some Any) async -> (any Error)? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error
    }
}

private func contextError(
    _ body: () async throws -> some Any
) async -> LanguageModelError.ContextSizeExceeded? {
    guard case LanguageModelError.contextSizeExceeded(let details)? = await failure(body) else {
        return nil
    }
    return details
}

private func isUnsupported(
    _ error: (any Error)?, _ capability: LanguageModelCapabilities.Capability
) -> Bool {
    guard case LanguageModelError.unsupportedCapability(let details)? = error else { return false }
    return details.capability == capability && !details.debugDescription.isEmpty
}

/// A model that claims all capabilities, so that the session does not check them.
private struct Unchecked: FoundationModels.LanguageModel {
    let model: OpenELMLanguageModel
    let executor: OpenELMLanguageModel.Executor
    var capabilities: LanguageModelCapabilities {
        LanguageModelCapabilities([.toolCalling, .guidedGeneration])
    }
    var executorConfiguration: String { "unchecked" }

    struct Executor: LanguageModelExecutor {
        init(configuration: String) {}
        func prewarm(model: Unchecked, transcript: Transcript) {}
        func respond(
            to request: LanguageModelExecutorGenerationRequest, model: Unchecked,
            streamingInto channel: LanguageModelExecutorGenerationChannel
        ) async throws {
            try await model.executor.respond(
                to: request, model: model.model, streamingInto: channel)
        }
    }
}

private final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var count = 0
    var value: Int { lock.withLock { count } }
    func add() { lock.withLock { count += 1 } }
}
