import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite struct ChatSettingsTests {
    @Test func restoresSettings() throws {
        let folder = try TemporaryFolder()
        let first = SettingsModel(directory: folder.url)
        #expect(first.settings == ChatSettings() && first.problem == nil)
        first.settings.temperature = 0.25
        first.settings.topP = 0.5
        first.settings.maximumResponseTokens = 7
        first.settings.repetitionPenalty = 1.5
        first.settings.instructions = "Be brief."
        first.settings.template = .instruction
        first.settings.lastModel = "sample"
        let second = SettingsModel(directory: folder.url)
        #expect(second.settings == first.settings && second.problem == nil)
        second.reset()
        var defaults = ChatSettings()
        defaults.lastModel = "sample"
        #expect(SettingsModel(directory: folder.url).settings == defaults)
    }

    @Test func readsTheFileOfAnotherVersion() throws {
        let folder = try TemporaryFolder()
        try folder.write("{\"topP\": 0.5, \"later\": 1}", to: "settings.json")
        var expected = ChatSettings()
        expected.topP = 0.5
        #expect(SettingsModel(directory: folder.url).settings == expected)
    }

    @Test func keepsAnUnreadableFile() throws {
        let folder = try TemporaryFolder()
        try folder.write("{\"topP\": ", to: "settings.json")
        let settings = SettingsModel(directory: folder.url)
        #expect(settings.settings == ChatSettings())
        #expect(settings.problem?.contains("could not be read") == true)
        settings.settings.topP = 0.5
        #expect(settings.problem == nil)
        #expect(try folder.names(in: "") == ["settings-unreadable.json", "settings.json"])
        let kept = folder.url.appending(path: "settings-unreadable.json")
        #expect(try String(contentsOf: kept, encoding: .utf8) == "{\"topP\": ")
    }

    @Test func reportsDiskErrors() throws {
        let folder = try TemporaryFolder()
        let file = try folder.write("no folder", to: "file")
        let settings = SettingsModel(directory: file)
        settings.settings.topP = 0.5
        #expect(settings.problem?.contains("could not be saved") == true)
        #expect(settings.settings.topP == 0.5)
    }

    @Test func makesGenerationOptions() {
        var settings = ChatSettings()
        #expect(
            settings.options
                == GenerationOptions(
                    samplingMode: .random(probabilityThreshold: 0.95), temperature: 0.7,
                    maximumResponseTokens: 256, repetitionPenalty: 1.2))
        settings.temperature = 0
        #expect(settings.options.samplingMode == .greedy)
    }

    @Test func choosesTheTemplate() {
        let chosen = TemplateChoice.allCases.map(\.template)
        #expect(chosen == [nil, .openELMInstruct, .instruction, .plain])
    }
}
