import Observation
import OpenELM
import Testing

@MainActor @Suite(.serialized) struct ConversationTests {
    @Test func publishesTheAnswerAsItIsGenerated() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 12)
        let conversation = try Conversation(model: model, template: .plain, options: options)
        let changed = ProgressValues()
        withObservationTracking {
            _ = conversation.messages
        } onChange: {
            changed.append(1)
        }
        conversation.send("Once upon a time")
        #expect(changed.all == [1])
        #expect(conversation.isResponding && conversation.messages.count == 2)
        conversation.send("nothing meanwhile")
        #expect(conversation.messages.count == 2)
        await conversation.finish()
        #expect(!conversation.isResponding && conversation.error == nil)
        #expect(conversation.promptProgress == 1)
        #expect(conversation.stats?.generatedTokens == 12)
        let text = try await model.generate("Once upon a time", options: options)
        #expect(conversation.messages.map(\.text) == ["Once upon a time", text])
    }

    @Test func keepsAStoppedAnswerAndRemovesAFailedOne() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(
            maximumResponseTokens: 400, ignoreEos: true)
        let conversation = try Conversation(model: model, template: .plain, options: options)
        conversation.send("A fox")
        while conversation.messages[1].text.isEmpty { await Task.yield() }
        conversation.stop()
        await conversation.finish()
        #expect(conversation.messages.count == 2 && conversation.error == nil)
        #expect(conversation.messages[1].text.count < 400)

        conversation.options.temperature = -1
        conversation.send("A bear")
        await conversation.finish()
        #expect(conversation.messages.count == 2)
        guard case .invalidOption("temperature", _) = conversation.error else {
            Issue.record("failed with \(String(describing: conversation.error))")
            return
        }
        conversation.options = GenerationOptions(maximumResponseTokens: 4)
        conversation.send("A bear")
        await conversation.finish()
        #expect(conversation.error == nil && conversation.messages.count == 4)
    }

    /// The session and the view have the same messages, and a session restores them.
    @Test func aStoppedOrEmptyAnswerKeepsItsPrompt() async throws {
        let model = try await LanguageModel(folder: tales)
        let long = GenerationOptions(maximumResponseTokens: 400, ignoreEos: true)
        let conversation = try Conversation(model: model, template: .plain, options: long)
        conversation.send("A fox")
        conversation.stop()
        await conversation.finish()
        #expect(conversation.error == nil)
        #expect(conversation.messages.count == 2)
        conversation.options = GenerationOptions(maximumResponseTokens: 0)
        conversation.send("A bear")
        await conversation.finish()
        #expect(conversation.messages.count == 4 && conversation.error == nil)
        #expect(conversation.messages[3].text.isEmpty)
        conversation.options = long
        conversation.send("A wolf")
        while conversation.messages[5].text.isEmpty { await Task.yield() }
        conversation.stop()
        await conversation.finish()
        let shown = conversation.messages.map {
            LanguageModelSession.Message(role: $0.role, text: $0.text)
        }
        #expect(shown.count == 6)
        let kept = try await conversation.transcript
        #expect(kept == shown)
        let restored = try LanguageModelSession(
            model: model, transcript: shown, template: .plain)
        let transcript = try await restored.transcript
        #expect(transcript == shown)
        let answer = try await restored.respond(
            to: "A hare", options: GenerationOptions(maximumResponseTokens: 4))
        #expect(answer.stats.generatedTokens == 4)
    }

    @Test func releasedConversationCancelsItsAnswer() async throws {
        let model = try await LanguageModel(folder: tales)
        var conversation: Conversation? = try Conversation(
            model: model, template: .plain,
            options: GenerationOptions(maximumResponseTokens: 400, ignoreEos: true))
        weak var held = conversation
        conversation?.send("A fox")
        conversation = nil
        for _ in 0..<200 where held != nil { try await Task.sleep(for: .milliseconds(10)) }
        #expect(held == nil)
    }
}
