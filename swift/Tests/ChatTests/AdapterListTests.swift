import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite(.serialized) struct AdapterListTests {
    @Test func addsAndSwitchesAdapters() async throws {
        let folder = try TemporaryFolder()
        let row = "{\"text\": \"The fox found a red apple and gave it to the king.\"}\n"
        let data = try folder.write(row + row, to: "rows.jsonl")
        var options = FinetuneOptions()
        (options.iters, options.batchSize, options.learningRate) = (4, 2, 1e-2)
        let adapter = folder.url.appending(path: "mine")
        let model = try await LanguageModel(folder: tales)
        for try await _ in model.finetune(on: data, savingTo: adapter, options: options) {}

        let fixture = try await ChatFixture.started()
        let adapters = fixture.chat.adapters
        func answer() async throws -> String {
            fixture.chat.newConversation()
            return try await fixture.ask("The fox")
        }
        let plain = try await answer()
        await adapters.add(adapter)
        #expect(adapters.names == ["mine"] && adapters.active == "mine" && adapters.problem == nil)
        let tuned = try await answer()
        #expect(tuned != plain)
        await adapters.use(nil)
        #expect(adapters.active == nil && adapters.names == ["mine"])
        #expect(try await answer() == plain)
        await adapters.add(adapter)
        #expect(adapters.active == "mine" && adapters.names == ["mine"])
        #expect(try await answer() == tuned)
        await adapters.add(URL(filePath: "/nowhere"))
        #expect(adapters.problem?.contains("/nowhere") == true && adapters.active == "mine")
        fixture.chat.open(tales)
        await fixture.chat.loader.finish()
        #expect(adapters.names.isEmpty && adapters.active == nil && adapters.problem == nil)
    }
}
