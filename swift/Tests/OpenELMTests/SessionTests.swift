import Foundation
import OpenELM
import Testing

@Suite(.serialized) struct SessionTests {
    let short = GenerationOptions(maximumResponseTokens: 12)

    @Test func aSavedSessionContinuesWithItsCache() async throws {
        let folder = try Folder()
        let file = folder.url.appending(path: "session.safetensors")
        let model = try await LanguageModel(folder: tales)
        #expect(model.chatTemplate == .plain)
        let session = try LanguageModelSession(model: model)
        _ = try await session.respond(to: "Once upon a time there was a fox.", options: short)
        try await session.save(to: file)
        let transcript = try await session.transcript
        let expected = try await session.respond(to: " The bear", options: short)

        let again = try await LanguageModel(folder: tales)
        let restored = try await LanguageModelSession(model: again, contentsOf: file)
        #expect(try await restored.transcript == transcript)
        let answer = try await restored.respond(to: " The bear", options: short)
        #expect(answer.content == expected.content)
        #expect(answer.stats.cachedTokens > 12)

        await #expect(throws: OpenELMError.self) {
            try await session.save(to: tales.appending(path: "config.json"))
        }
        await #expect(throws: OpenELMError.self) {
            try await LanguageModelSession(
                model: again, contentsOf: tales.appending(path: "model.safetensors"))
        }
        let conversation = try await Conversation(model: again, contentsOf: file, options: short)
        #expect(await conversation.messages.map(\.text) == transcript.map(\.text))
    }

    @Test func aPromptThatWasReadBeforeBeginsSooner() async throws {
        let story = "Once upon a time there was a little girl named Lily. She liked to play"
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, instructions: "Tell a story. ")
        session.prewarm(promptPrefix: "Once upon a time there was a little girl named Lily.")
        _ = try await model.generate("A bear", options: short)
        let answer = try await session.respond(to: story, options: short)
        #expect(answer.stats.cachedTokens > 12, "\(answer.stats)")
    }

    @Test func countsTokensOfAConversation() async throws {
        let model = try await LanguageModel(folder: tales)
        let transcript: [LanguageModelSession.Message] = [
            .init(role: .instructions, text: "Be brief."), .init(role: .prompt, text: "Hello?"),
        ]
        let count = try model.tokenCount(of: transcript, template: .openELMInstruct)
        let session = try LanguageModelSession(
            model: model, instructions: "Be brief.", template: .openELMInstruct)
        let answer = try await session.respond(to: "Hello?", options: short)
        #expect(answer.stats.promptTokens == count)
        let more = try model.tokenCount(
            of: try await session.transcript, template: .openELMInstruct)
        #expect(more > count + 4)
        #expect(try model.tokenCount(of: []) == 1, "BOS")
    }

    @Test func aFullContextIsAnErrorOrLeavesOutTurns() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model)
        let question = String(repeating: "The fox had apples and pears. ", count: 12)
        var options = GenerationOptions(maximumResponseTokens: 8)
        var failed = false
        for _ in 0..<20 where !failed {
            do {
                _ = try await session.respond(to: question, options: options)
            } catch OpenELMError
                .exceededContextWindowSize(let tokens, let context)
            {
                #expect(try tokens >= context && context == model.contextSize)
                failed = true
            }
        }
        #expect(failed)
        let before = try await session.transcript.count
        options.contextOverflow = .dropOldestTurns
        _ = try await session.respond(to: question, options: options)
        #expect(try session.droppedMessages > 0)
        #expect(try await session.transcript.count == before + 2)
    }

    @Test func aDraftModelChangesNoText() async throws {
        let model = try await LanguageModel(folder: tales)
        let draft = DraftModel(try await LanguageModel(folder: tales))
        let expected = try await model.generate("The fox", options: short)
        let drafted = try await model.streamGenerate("The fox", options: short, draft: draft)
            .collect()
        #expect(drafted.content == expected && drafted.stats.acceptedTokens > 4)
        let session = try LanguageModelSession(model: model, draft: draft)
        let answer = try await session.respond(to: "The fox", options: short)
        #expect(answer.content == expected && answer.stats.draftedTokens > 4)
    }

    @Test func errorsUseTheWordsOfThisPackage() async throws {
        let model = try await LanguageModel(folder: tales)
        func message(_ transcript: [LanguageModelSession.Message]) -> String {
            do {
                _ = try LanguageModelSession(model: model, transcript: transcript)
                return "accepted"
            } catch { return "\(error)" }
        }
        let prompt = LanguageModelSession.Message(role: .prompt, text: "Hello?")
        let response = LanguageModelSession.Message(role: .response, text: "Hi.")
        #expect(message([prompt]) == "transcript: the last message is not a response")
        #expect(
            message([response])
                == "transcript: message 1: expected the role `prompt`, found `response`")
        #expect(message([prompt, response]) == "accepted")
        do {
            try await model.setAdapters([Adapter("mine")])
            Issue.record("an unknown adapter was accepted")
        } catch let error as OpenELMError {
            #expect(error.recoverySuggestion?.contains("adapters") == true)
        }
        do {
            _ = try await LanguageModel(folder: URL(filePath: "/nowhere"))
            Issue.record("a missing folder was loaded")
        } catch OpenELMError.missingFile(let path, _) { #expect(path.contains("/nowhere")) }
        let data = URL(filePath: "/nowhere/train.jsonl")
        let folder = try Folder()
        do {
            for try await _ in model.finetune(on: data, savingTo: folder.url) {}
            Issue.record("missing data was read")
        } catch OpenELMError.missingFile(let path, _) { #expect(path.contains("/nowhere")) }
    }

    /// Keys and values of ended sessions are kept up to a limit. `OPENELM_SESSIONS` is the number.
    @Test func sessionsKeepMemoryConstant() async throws {
        let environment = ProcessInfo.processInfo.environment
        let sessions = environment["OPENELM_SESSIONS"].flatMap(Int.init) ?? 180
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 3)
        func active(after sessions: Range<Int>) async throws -> Int {
            for number in sessions {
                let session = try LanguageModelSession(model: model)
                _ = try await session.respond(to: "The fox had \(number) apples", options: options)
            }
            return try Memory.statistics.active
        }
        // 64 texts are kept.
        let before = try await active(after: 0..<100)
        let after = try await active(after: 100..<max(sessions, 101))
        #expect(after < before + 2_000_000, "\(before) and \(after) bytes")
    }

    @Test func messagesAndAdaptersDoNotWaitForATraining() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model)
        _ = try await session.respond(to: "A fox", options: short)
        let folder = try Folder()
        let data = folder.url.appending(path: "train.jsonl")
        let row = "{\"text\": \"The fox found a red apple and gave it to the king.\"}\n"
        try Data(String(repeating: row, count: 64).utf8).write(to: data)
        var options = FinetuneOptions()
        (options.iters, options.batchSize) = (100_000, 32)
        let steps = ProgressValues()
        let training = Task { [options] in
            for try await event in model.finetune(
                on: data, savingTo: folder.url.appending(path: "run"), options: options)
            {
                if case .step = event { steps.append(1) }
            }
        }
        while steps.all.isEmpty { await Task.yield() }
        let before = steps.all.count
        for _ in 0..<20 {
            #expect(try await session.transcript.count == 2)
            #expect(try await !session.isResponding)
            #expect(try await model.adapters.isEmpty)
        }
        // A training step that was running may have ended.
        #expect(steps.all.count <= before + 2)
        training.cancel()
        await #expect(throws: CancellationError.self) { try await training.value }
    }
}
