import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite struct ConversationStoreTests {
    private func conversation(_ prompt: String, at seconds: Double) -> SavedConversation {
        SavedConversation(
            template: .plain, changed: Date(timeIntervalSince1970: seconds),
            messages: [.init(role: .prompt, text: prompt), .init(role: .response, text: "…")])
    }

    @Test func restoresConversations() throws {
        let folder = try TemporaryFolder()
        let store = ConversationStore(directory: folder.url.appending(path: "a/b"))
        #expect(try store.load() == ConversationStore.Contents())
        var first = conversation("A fox \u{1F98A}\n\u{0}", at: 1.25)
        try store.save(first)
        first.name = "Foxes"
        try store.save(first)
        #expect(try store.load().conversations == [first])
        try store.delete(first.id)
        try store.delete(first.id)
        #expect(try store.load() == ConversationStore.Contents())
        #expect(try folder.names(in: "a/b").isEmpty, "temporary files are left")
    }

    @Test func reportsUnreadableFilesAndLeavesThem() throws {
        let folder = try TemporaryFolder()
        let store = ConversationStore(directory: folder.url)
        let good = conversation("A fox", at: 1)
        try store.save(good)
        let file = folder.url.appending(path: "\(good.id.uuidString).json")
        let text = try String(contentsOf: file, encoding: .utf8)
        let id = UUID()
        let bad = [
            "cut.json": String(text.prefix(40)),
            // A copy of a file has the id of another conversation.
            "copy.json": text,
            // A file of a later version.
            "\(id.uuidString).json": text.replacingOccurrences(
                of: "\"format\" : 1", with: "\"format\" : 2"
            )
            .replacingOccurrences(of: good.id.uuidString, with: id.uuidString),
        ]
        for (name, text) in bad { try folder.write(text, to: name) }
        try folder.write("of another program", to: "notes.txt")
        let list = ConversationList(store: store)
        list.load()
        #expect(list.conversations == [good])
        let problem = try #require(list.problem)
        for name in bad.keys { #expect(problem.contains(name)) }
        #expect(!problem.contains("notes.txt") && !problem.contains(file.lastPathComponent))
        list.rename(good.id, to: "Foxes")
        list.delete(good.id)
        for (name, text) in bad {
            let left = try String(contentsOf: folder.url.appending(path: name), encoding: .utf8)
            #expect(left == text)
        }
    }

    @Test func sortsByTheLastChange() throws {
        let folder = try TemporaryFolder()
        let list = ConversationList(store: ConversationStore(directory: folder.url))
        var old = conversation("old", at: 1)
        list.save(conversation("new", at: 3))
        list.save(old)
        list.save(conversation("middle", at: 2))
        #expect(list.conversations.map(\.title) == ["new", "middle", "old"])
        old.changed = Date(timeIntervalSince1970: 4)
        list.save(old)
        #expect(list.conversations.map(\.title) == ["old", "new", "middle"])
        let again = ConversationList(store: ConversationStore(directory: folder.url))
        again.load()
        #expect(again.conversations == list.conversations)
    }

    @Test func reportsDiskErrors() throws {
        let folder = try TemporaryFolder()
        let file = try folder.write("no folder", to: "file")
        let list = ConversationList(store: ConversationStore(directory: file))
        list.load()
        #expect(list.problem?.contains("could not be read") == true)
        let one = conversation("A fox", at: 1)
        list.save(one)
        #expect(list.problem?.contains("could not be saved") == true && list.conversations == [one])
        list.rename(UUID(), to: "nothing")
        #expect(list.conversations == [one])
    }

    @Test func shortensLongTitles() {
        #expect(conversation("A fox\n\nand a bear", at: 1).title == "A fox and a bear")
        let long = conversation(String(repeating: "word ", count: 20), at: 1).title
        #expect(long.count == 40 && long.hasSuffix("…"))
        var empty = conversation("", at: 1)
        empty.messages = []
        #expect(empty.title == "New conversation")
    }
}
