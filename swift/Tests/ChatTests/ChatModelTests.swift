import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite(.serialized) struct ChatModelTests {
    @Test func startsWithTheSample() async throws {
        let fixture = try await ChatFixture.started()
        #expect(fixture.chat.loader.folder == tales)
        #expect(fixture.chat.settings.settings.lastModel == "sample")
        #expect(try await fixture.ask("Once upon a time").count > 10)
        #expect(fixture.chat.session.problem == nil)
    }

    @Test func withoutASampleTheAppStartsEmpty() async throws {
        let fixture = try ChatFixture(sample: nil)
        await fixture.chat.start()
        #expect(fixture.chat.loader.state == .empty && fixture.chat.catalog.entries.isEmpty)
        fixture.chat.session.draft = "A fox"
        #expect(!fixture.chat.session.canSend)
        fixture.chat.session.send()
        #expect(fixture.chat.session.draft == "A fox" && fixture.chat.session.messages.isEmpty)
    }

    @Test func loadsTheLastModelAtTheNextStart() async throws {
        let folder = try TemporaryFolder()
        let documents = folder.url.appending(path: "Documents")
        try FileManager.default.createDirectory(at: documents, withIntermediateDirectories: true)
        let copy = documents.appending(path: "mine")
        try FileManager.default.copyItem(at: tales, to: copy)
        let first = try ChatFixture(in: folder)
        await first.chat.start()
        first.chat.open(try #require(first.chat.catalog["documents/mine"]))
        await first.chat.loader.finish()
        #expect(first.chat.loader.state == .ready)

        let second = try ChatFixture(in: folder)
        await second.chat.start()
        #expect(second.chat.loader.folder?.path == copy.path)
        await second.chat.loader.finish()
        #expect(second.chat.loader.state == .ready)

        // The model is gone: the sample takes its place.
        try FileManager.default.removeItem(at: copy)
        let third = try ChatFixture(in: folder)
        await third.chat.start()
        #expect(third.chat.loader.folder == tales)
        third.chat.loader.unload()
        await third.chat.loader.finish()
        #expect(third.chat.loader.state == .empty && third.chat.loader.model == nil)
    }

    @Test func reportsLoadErrors() async throws {
        let fixture = try ChatFixture()
        fixture.chat.open(URL(filePath: "/nowhere"))
        await fixture.chat.loader.finish()
        guard case .failed(let why) = fixture.chat.loader.state else {
            Issue.record("\(fixture.chat.loader.state)")
            return
        }
        #expect(why.contains("/nowhere"))

        let small = try ChatFixture(available: { 1_000_000 })
        small.chat.open(tales)
        await small.chat.loader.finish()
        guard case .failed(let why) = small.chat.loader.state else {
            Issue.record("\(small.chat.loader.state)")
            return
        }
        #expect(why.contains("are free"), "\(why)")
        #expect(small.chat.loader.model == nil)
    }

    @Test func theLastChosenModelIsLoaded() async throws {
        let fixture = try ChatFixture()
        fixture.chat.open(URL(filePath: "/nowhere"))
        fixture.chat.open(tales)
        await fixture.chat.loader.finish()
        #expect(fixture.chat.loader.state == .ready && fixture.chat.loader.folder == tales)
        // Also if it is unloaded at once.
        fixture.chat.open(tales)
        fixture.chat.loader.unload()
        await fixture.chat.loader.finish()
        #expect(fixture.chat.loader.state == .empty && fixture.chat.loader.model == nil)
    }

    @Test func aModelSwitchKeepsTheStoppedAnswer() async throws {
        let fixture = try await ChatFixture.started(tokens: 500)
        let session = fixture.chat.session
        try await fixture.begin("A fox")
        let old = try #require(fixture.chat.loader.model)
        fixture.chat.open(tales)
        await fixture.chat.loader.finish()
        #expect(fixture.chat.loader.state == .ready && fixture.chat.loader.model !== old)
        #expect(fixture.chat.session === session && !session.isResponding)
        #expect(session.problem == nil && session.messages.count == 2)
        let kept = session.messages[1].text
        #expect(!kept.isEmpty)
        // The conversation continues with the new model.
        fixture.chat.settings.settings.maximumResponseTokens = 4
        try await fixture.ask("A bear")
        #expect(session.messages.count == 4 && session.messages[1].text == kept)
        let saved = try #require(fixture.chat.conversations.conversations.first)
        #expect(saved.messages.map(\.text) == session.messages.map(\.text))
    }

    @Test func deletesTheOpenConversationWhileItAnswers() async throws {
        let fixture = try await ChatFixture.started()
        try await fixture.ask("A bear")
        let open = fixture.chat.session
        fixture.chat.settings.settings.maximumResponseTokens = 500
        try await fixture.begin("A fox")
        fixture.chat.delete(open.id)
        #expect(fixture.chat.session !== open && fixture.chat.session.messages.isEmpty)
        await open.finish()
        #expect(fixture.chat.conversations.conversations.isEmpty)
        #expect(try fixture.folder.names(in: "Support/Conversations").isEmpty)
        fixture.chat.settings.settings.maximumResponseTokens = 4
        try await fixture.ask("A wolf")
        #expect(fixture.chat.conversations.conversations.map(\.title) == ["A wolf"])
    }

    @Test func aConversationThatWasLeftSavesItsAnswer() async throws {
        let fixture = try await ChatFixture.started()
        try await fixture.ask("A bear")
        let left = fixture.chat.session
        fixture.chat.settings.settings.maximumResponseTokens = 500
        try await fixture.begin("A fox")
        fixture.chat.newConversation()
        #expect(fixture.chat.session !== left)
        // Before its answer has stopped, it is the same conversation.
        if left.isResponding {
            fixture.chat.open(left.id)
            #expect(fixture.chat.session === left)
        }
        await left.finish()
        let saved = try #require(fixture.chat.conversations.conversations.first)
        #expect(saved.id == left.id && saved.messages.count == 4)
        // Deleted after it was left, it is not saved again.
        try await fixture.begin("A wolf")
        let last = fixture.chat.session
        fixture.chat.newConversation()
        fixture.chat.delete(last.id)
        await last.finish()
        #expect(!fixture.chat.conversations.conversations.contains { $0.id == last.id })
    }

    @Test func reopensRenamesAndDeletes() async throws {
        let folder = try TemporaryFolder()
        let first = try await ChatFixture.started(in: folder)
        try await first.ask("A bear")
        let bear = first.chat.session.id
        first.chat.newConversation()
        try await first.ask("A wolf\nand a hare")
        #expect(
            first.chat.conversations.conversations.map(\.title) == ["A wolf and a hare", "A bear"])
        first.chat.rename(bear, to: "  Bears ")
        #expect(
            first.chat.conversations.conversations.map(\.title) == ["A wolf and a hare", "Bears"])
        // The open one keeps its title at the next answer.
        first.chat.rename(first.chat.session.id, to: "Wolves")
        try await first.ask("And then")
        #expect(first.chat.conversations.conversations.map(\.title) == ["Wolves", "Bears"])

        let second = try await ChatFixture.started(in: folder)
        #expect(
            second.chat.conversations.conversations == first.chat.conversations.conversations)
        second.chat.open(bear)
        #expect(second.chat.session.messages.map(\.text).first == "A bear")
        try await second.ask("And then")
        #expect(second.chat.session.messages.count == 4)
        #expect(second.chat.conversations.conversations.map(\.title) == ["Bears", "Wolves"])
        second.chat.rename(bear, to: "")
        #expect(second.chat.conversations.conversations.map(\.title) == ["A bear", "Wolves"])
        second.chat.delete(bear)
        #expect(second.chat.session.messages.isEmpty && second.chat.session.id != bear)
        let third = try await ChatFixture.started(in: folder)
        #expect(third.chat.conversations.conversations.map(\.title) == ["Wolves"])
    }

    @Test func showsAConversationWithoutAModel() async throws {
        let folder = try TemporaryFolder()
        let first = try await ChatFixture.started(in: folder)
        first.chat.settings.settings.instructions = "A tale."
        first.chat.newConversation()
        try await first.ask("A bear")
        let second = try ChatFixture(in: folder, sample: nil)
        await second.chat.start()
        second.chat.open(first.chat.session.id)
        #expect(second.chat.session.messages == first.chat.session.messages)
        #expect(!second.chat.session.canRetry)
        second.chat.session.retry()
        #expect(!second.chat.session.isResponding)
        // A model that is loaded later continues it.
        second.chat.open(tales)
        await second.chat.loader.finish()
        try await second.ask("And then")
        #expect(second.chat.session.messages.count == 4)
        #expect(second.chat.session.saved.messages.count == 5)
    }

    @Test func aDeletedModelIsUnloaded() async throws {
        let library = FakeLibrary(.available(tales))
        let fixture = try ChatFixture(sample: nil, library: library)
        await fixture.chat.start()
        fixture.chat.open(try #require(fixture.chat.catalog[fakeModel.repository]))
        await fixture.chat.loader.finish()
        #expect(fixture.chat.loader.state == .ready)
        await fixture.chat.deleteModel(fakeModel.repository)
        #expect(fixture.chat.loader.state == .empty && fixture.chat.loader.model == nil)
        #expect(fixture.chat.catalog[fakeModel.repository]?.state == .notDownloaded)
        #expect(await library.deletions == 1)
    }

    @Test func launchArgumentsShowAScreen() async throws {
        let arguments = LaunchArguments([
            "Chat", "-NSDocumentRevisionsDebugMode", "YES", "--ask", "A fox", "--show", "models",
        ])
        #expect(arguments.prompt == "A fox" && arguments.sheet == .models)
        #expect(LaunchArguments(["Chat", "--ask"]) == LaunchArguments([]))
        #expect(LaunchArguments(["Chat", "--show", "nothing"]) == LaunchArguments([]))
        let fixture = try ChatFixture()
        fixture.chat.settings.settings.maximumResponseTokens = 4
        await fixture.chat.start(arguments)
        #expect(fixture.chat.sheet == .models)
        await fixture.chat.session.finish()
        #expect(fixture.chat.session.messages.map(\.role) == [.prompt, .response])
    }

    @Test func readsMemory() async throws {
        let fixture = try await ChatFixture.started()
        fixture.chat.loader.readMemory()
        let memory = try #require(fixture.chat.loader.memory)
        // Weights that need no cast are mapped from their file on a CPU and are not counted.
        #expect(memory.used > 0 && memory.share > 0 && memory.share < 1)
        #expect(memory.text.contains("free") == (memory.free != nil))
        #expect(MemoryReading(used: 1, free: 3).share == 0.25)
        #expect(MemoryReading(used: 1, free: nil).share == 0)
    }
}
