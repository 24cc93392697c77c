import Foundation
import Observation
import OpenELM

/// The user's choice of a template.
enum TemplateChoice: String, Codable, CaseIterable, Sendable {
    /// The template that the model's files or its name state.
    case automatic
    case openELMInstruct
    case instruction
    case plain

    /// The template; `nil` is the model's own.
    var template: ChatTemplate? {
        switch self {
        case .automatic: nil
        case .openELMInstruct: .openELMInstruct
        case .instruction: .instruction
        case .plain: .plain
        }
    }
}

/// The settings of the app, kept in a file.
struct ChatSettings: Codable, Equatable, Sendable {
    /// Sampling temperature; 0 always picks the most likely token.
    var temperature = 0.7
    /// Total probability of the tokens to draw from, in (0, 1].
    var topP = 0.95
    /// Maximum number of tokens of an answer.
    var maximumResponseTokens = 256
    /// Penalty on repeated tokens; 1 disables it.
    var repetitionPenalty = 1.2
    /// Instructions at the beginning of new conversations.
    var instructions = ""
    /// Template of new conversations.
    var template = TemplateChoice.automatic
    /// The model to load when the app starts.
    var lastModel: ModelEntry.ID?

    init() {}

    /// Options of this package for the next answer.
    var options: GenerationOptions {
        GenerationOptions(
            samplingMode: temperature > 0 ? .random(probabilityThreshold: topP) : .greedy,
            temperature: temperature, maximumResponseTokens: maximumResponseTokens,
            repetitionPenalty: repetitionPenalty)
    }

    /// Decodes the settings; a missing one has its default, as in a file of an older version.
    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        func value<T: Decodable>(_ key: CodingKeys, _ fallback: T) throws -> T {
            try values.decodeIfPresent(T.self, forKey: key) ?? fallback
        }
        temperature = try value(.temperature, temperature)
        topP = try value(.topP, topP)
        maximumResponseTokens = try value(.maximumResponseTokens, maximumResponseTokens)
        repetitionPenalty = try value(.repetitionPenalty, repetitionPenalty)
        instructions = try value(.instructions, instructions)
        template = try value(.template, template)
        lastModel = try values.decodeIfPresent(String.self, forKey: .lastModel)
    }
}

/// The settings, saved at each change.
@MainActor @Observable final class SettingsModel {
    /// The current settings.
    var settings = ChatSettings() {
        didSet { if settings != oldValue { save() } }
    }
    /// The last error of the file.
    private(set) var problem: String?

    @ObservationIgnored private let file: JSONFile<ChatSettings>

    /// Reads the settings in `directory`. A file that cannot be read gives the defaults, and is
    /// kept under another name.
    init(directory: URL) {
        file = JSONFile(url: directory.appending(path: "settings.json"))
        guard file.exists else { return }
        do { settings = try file.read() } catch {
            problem = localized("The settings could not be read: %@", errorText(error))
            let kept = directory.appending(path: "settings-unreadable.json")
            try? FileManager.default.removeItem(at: kept)
            try? FileManager.default.moveItem(at: file.url, to: kept)
        }
    }

    /// Restores the defaults. The choice of the model stays.
    func reset() {
        var defaults = ChatSettings()
        defaults.lastModel = settings.lastModel
        settings = defaults
    }

    private func save() {
        do {
            try file.write(settings)
            problem = nil
        } catch {
            problem = localized("The settings could not be saved: %@", errorText(error))
        }
    }
}
