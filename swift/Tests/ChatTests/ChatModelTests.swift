import Foundation
import OpenELM
import Testing

@testable import openelm_chat

let tales = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../../examples/tales").standardizedFileURL

@MainActor @Suite(.serialized) struct ChatModelTests {
    let greedy = GenerationOptions(maximumResponseTokens: 12)

    @Test func loadsAChosenModelAndAnswers() async throws {
        let chat = ChatModel(options: greedy)
        #expect(chat.state == .empty && chat.conversation == nil)
        chat.scan(tales.deletingLastPathComponent())
        #expect(chat.folders.map(\.path) == [tales.path])
        chat.scan(tales.deletingLastPathComponent())
        #expect(chat.folders.count == 1, "found twice")
        chat.open(tales)
        #expect(chat.state == .loading(0) && chat.folder == tales)
        await chat.finishLoading()
        #expect(chat.state == .ready)
        let conversation = try #require(chat.conversation)
        conversation.send("Once upon a time")
        await conversation.finish()
        #expect(conversation.error == nil && conversation.messages.count == 2)
        #expect(conversation.messages[1].text.count > 10)

        chat.startOver()
        #expect(chat.conversation !== conversation)
        #expect(chat.conversation?.messages.isEmpty == true)
        chat.close()
        #expect(chat.state == .empty && chat.conversation == nil && chat.folder == nil)
    }

    @Test func reportsLoadErrors() async throws {
        let chat = ChatModel(options: greedy)
        chat.open(URL(filePath: "/nowhere"))
        await chat.finishLoading()
        guard case .failed(let why) = chat.state else {
            Issue.record("\(chat.state)")
            return
        }
        #expect(why.contains("/nowhere"))

        let small = ChatModel(options: greedy, available: { 1_000_000 })
        small.open(tales)
        await small.finishLoading()
        guard case .failed(let why) = small.state else {
            Issue.record("\(small.state)")
            return
        }
        #expect(why.contains("are free"), "\(why)")
        #expect(small.conversation == nil)
    }

    @Test func loadsTheLastChosenModel() async throws {
        let chat = ChatModel(options: greedy)
        chat.open(URL(filePath: "/nowhere"))
        chat.open(tales)
        await chat.finishLoading()
        #expect(chat.state == .ready && chat.folder == tales)
        // Switching to another model ends the previous model's answer.
        let left = try #require(chat.conversation)
        left.options = GenerationOptions(maximumResponseTokens: 400, ignoreEos: true)
        left.send("A fox")
        chat.open(tales)
        await left.finish()
        #expect(left.error == nil && !left.isResponding)
        await chat.finishLoading()
        #expect(chat.state == .ready && chat.conversation !== left)
    }

    @Test func addsAndSwitchesAdapters() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "openelm-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let data = folder.appending(path: "rows.jsonl")
        let row = "{\"text\": \"The fox found a red apple and gave it to the king.\"}\n"
        try Data((row + row).utf8).write(to: data)
        var options = FinetuneOptions()
        (options.iters, options.batchSize, options.learningRate) = (4, 2, 1e-2)
        let adapter = folder.appending(path: "mine")
        let model = try await LanguageModel(folder: tales)
        for try await _ in model.finetune(on: data, savingTo: adapter, options: options) {}

        let chat = ChatModel(options: greedy)
        chat.open(tales)
        await chat.finishLoading()
        func answer() async throws -> String {
            chat.startOver()
            let conversation = try #require(chat.conversation)
            conversation.send("The fox")
            await conversation.finish()
            return try #require(conversation.messages.last).text
        }
        let plain = try await answer()
        await chat.addAdapter(adapter)
        #expect(chat.adapters == ["mine"] && chat.adapter == "mine" && chat.problem == nil)
        let tuned = try await answer()
        #expect(tuned != plain)
        await chat.use(nil)
        #expect(chat.adapter == nil && chat.adapters == ["mine"])
        #expect(try await answer() == plain)
        await chat.addAdapter(adapter)
        #expect(chat.adapter == "mine" && chat.adapters == ["mine"])
        #expect(try await answer() == tuned)
        await chat.addAdapter(URL(filePath: "/nowhere"))
        #expect(chat.problem?.contains("/nowhere") == true)
        #expect(chat.adapter == "mine")
    }

    @Test func readsMemory() async throws {
        let chat = ChatModel(options: greedy)
        chat.open(tales)
        await chat.finishLoading()
        chat.readMemory()
        let memory = try #require(chat.memory)
        #expect(memory.used > 2_497_344 && memory.share > 0 && memory.share < 1)
        #expect(memory.text.contains("free") == (memory.free != nil))
        #expect(MemoryReading(used: 1, free: 3).share == 0.25)
        #expect(MemoryReading(used: 1, free: nil).share == 0)
    }

    @Test func choosesTheInstructTemplate() {
        #expect(template(named: "OpenELM-270M-Instruct") == .openELMInstruct)
        #expect(template(named: "OpenELM-270M") == .plain)
    }
}
