import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite(.serialized) struct ChatSessionTests {
    @Test func answersSavesAndAnnounces() async throws {
        let fixture = try await ChatFixture.started()
        let session = fixture.chat.session
        session.draft = " \n"
        #expect(!session.canSend)
        session.draft = "Once upon a time"
        session.send()
        #expect(session.isResponding && session.draft.isEmpty && !session.canSend)
        #expect(session.messages.map(\.role) == [.prompt, .response])
        await session.finish()
        #expect(!session.isResponding && session.promptProgress == nil)
        let text = session.messages[1].text
        #expect(text.count > 10 && fixture.announced.all == ["Answer: \(text)"])
        let saved = try #require(fixture.chat.conversations.conversations.first)
        #expect(saved == session.saved && saved.messages.map(\.text) == ["Once upon a time", text])
    }

    @Test func nothingElseStartsWhileAnswering() async throws {
        let fixture = try await ChatFixture.started(tokens: 500)
        let session = fixture.chat.session
        try await fixture.begin("A fox")
        session.draft = "A bear"
        session.send()
        #expect(!session.canRetry)
        session.retry()
        #expect(session.messages.count == 2 && session.draft == "A bear")
        session.stop()
        await session.finish()
        #expect(session.messages.count == 2 && session.draft == "A bear" && session.problem == nil)
        #expect(session.saved.messages.map(\.text) == session.messages.map(\.text))
    }

    @Test func retriesTheLastAnswer() async throws {
        let fixture = try await ChatFixture.started()
        let session = fixture.chat.session
        #expect(!session.canRetry)
        try await fixture.ask("A bear")
        let first = try await fixture.ask("A fox")
        session.retry()
        #expect(session.isResponding && session.messages.count == 4)
        await session.finish()
        // Greedy: the same prompt gives the same text.
        #expect(session.messages.count == 4 && session.messages[3].text == first)
        fixture.chat.settings.settings.maximumResponseTokens = 4
        session.retry()
        await session.finish()
        let shorter = session.messages[3].text
        #expect(shorter != first && first.hasPrefix(shorter))
        #expect(session.saved.messages.map(\.text) == session.messages.map(\.text))
        #expect(session.messages[2].text == "A fox")
    }

    @Test func aFailedOrEmptyRetryKeepsTheAnswer() async throws {
        let fixture = try await ChatFixture.started()
        let session = fixture.chat.session
        try await fixture.ask("A fox")
        let before = session.messages
        fixture.chat.settings.settings.repetitionPenalty = 0
        session.retry()
        await session.finish()
        #expect(session.problem?.contains("repetitionPenalty") == true && session.draft.isEmpty)
        #expect(session.messages == before && session.saved.messages.count == 2)
        fixture.chat.settings.settings.repetitionPenalty = 1
        fixture.chat.settings.settings.maximumResponseTokens = 0
        session.retry()
        await session.finish()
        #expect(session.problem == nil && session.messages == before)
        // The conversation continues from that answer.
        fixture.chat.settings.settings.maximumResponseTokens = 4
        try await fixture.ask("A bear")
        #expect(Array(session.messages.prefix(2)) == before && session.messages.count == 4)
    }

    @Test func aFailedPromptIsTheDraftAgain() async throws {
        let fixture = try await ChatFixture.started()
        let session = fixture.chat.session
        try await fixture.ask("A fox")
        fixture.chat.settings.settings.topP = 2
        fixture.chat.settings.settings.temperature = 1
        session.draft = "A bear"
        session.send()
        await session.finish()
        #expect(session.draft == "A bear" && session.messages.count == 2)
        let problem = try #require(session.problem)
        #expect(problem.contains("probabilityThreshold"))
        #expect(fixture.announced.all.last == "The answer failed: \(problem)")
        fixture.chat.settings.settings.topP = 0.9
        session.send()
        await session.finish()
        #expect(session.problem == nil && session.messages.count == 4)
    }

    @Test func aFullContextOffersANewConversation() async throws {
        let fixture = try ChatFixture()
        fixture.chat.settings.settings.instructions = "A tale of the forest."
        fixture.chat.settings.settings.temperature = 0
        fixture.chat.settings.settings.maximumResponseTokens = 4
        fixture.chat.newConversation()
        await fixture.chat.start()
        await fixture.chat.loader.finish()
        let full = fixture.chat.session
        try await fixture.ask("A fox")
        #expect(!full.isContextFull)
        let long = String(repeating: " and then", count: 600)
        full.draft = long
        full.send()
        await full.finish()
        #expect(full.isContextFull && full.draft == long && full.messages.count == 2)
        #expect(full.problem?.contains("512") == true, "\(full.problem ?? "")")

        fixture.chat.continueInNewConversation()
        let fresh = fixture.chat.session
        #expect(fresh !== full && fresh.draft == long && fresh.messages.isEmpty)
        #expect(fresh.saved.messages.map(\.text) == ["A tale of the forest."])
        try await fixture.ask("A bear")
        #expect(fresh.messages.count == 2 && !fresh.isContextFull)
        #expect(fixture.chat.conversations.conversations.count == 2)
    }

    @Test func anAnswerThatFillsTheContextSaysSo() async throws {
        let fixture = try await ChatFixture.started(tokens: 10_000)
        let session = fixture.chat.session
        // Ends at the context, unless the model ends its text before.
        for _ in 0..<20 where !session.isContextFull && session.problem == nil {
            try await fixture.ask("And then there was")
        }
        #expect(session.isContextFull)
    }

    @Test func copiesAnAnswerAndTheConversation() async throws {
        let fixture = try ChatFixture()
        fixture.chat.settings.settings.instructions = "Be brief."
        fixture.chat.settings.settings.maximumResponseTokens = 4
        fixture.chat.newConversation()
        await fixture.chat.start()
        await fixture.chat.loader.finish()
        let text = try await fixture.ask("A fox")
        let session = fixture.chat.session
        session.copy(try #require(session.messages.last))
        session.copyAll()
        #expect(
            fixture.copied.all == [
                text, "Instructions: Be brief.\n\nYou: A fox\n\nModel: \(text)",
            ])
    }

    @Test func aDiskErrorKeepsTheConversationInMemory() async throws {
        let fixture = try await ChatFixture.started()
        let place = fixture.folder.url.appending(path: "Support/Conversations")
        try fixture.folder.write("no folder", to: "Support/Conversations")
        try await fixture.ask("A fox")
        #expect(fixture.chat.session.messages.count == 2)
        #expect(fixture.chat.conversations.conversations.count == 1)
        #expect(fixture.chat.conversations.problem?.contains("could not be saved") == true)
        // The next answer saves everything.
        try FileManager.default.removeItem(at: place)
        try await fixture.ask("A bear")
        #expect(fixture.chat.conversations.problem == nil)
        let store = ConversationStore(directory: place)
        #expect(try store.load().conversations == fixture.chat.conversations.conversations)
    }
}
