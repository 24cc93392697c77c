import Foundation
import OpenELM

/// A conversation in a file.
struct SavedConversation: Codable, Identifiable, Equatable, Sendable {
    /// The version of the format; a file of another one is not read.
    private(set) var format = 1
    var id = UUID()
    /// The title that the user chose.
    var name: String?
    var template: TemplateChoice
    /// The time of the last change.
    var changed: Date
    /// All messages, and the instructions before them.
    var messages: [LanguageModelSession.Message]

    /// The user's title, or the beginning of the first prompt.
    var title: String {
        if let name { return name }
        guard let prompt = messages.first(where: { $0.role == .prompt }) else {
            return localized("New conversation")
        }
        let line = prompt.text.split(whereSeparator: \.isNewline).joined(separator: " ")
        return line.count > 40 ? line.prefix(39) + "…" : line
    }

    /// The messages before the first prompt.
    var instructions: [LanguageModelSession.Message] {
        Array(messages.prefix { $0.role == .instructions })
    }

    /// The conversation as text, to copy or share.
    var text: String {
        messages.map { message in
            switch message.role {
            case .instructions: localized("Instructions: %@", message.text)
            case .prompt: localized("You: %@", message.text)
            case .response: localized("Model: %@", message.text)
            }
        }
        .joined(separator: "\n\n")
    }
}

/// Conversations as JSON files in a folder, one file each.
struct ConversationStore: Sendable {
    let directory: URL

    /// Conversations, and the names of files that are none. These are left as they are.
    struct Contents: Equatable {
        var conversations: [SavedConversation] = []
        var unreadable: [String] = []
    }

    /// Reads all conversations.
    func load() throws -> Contents {
        guard FileManager.default.fileExists(atPath: directory.path) else { return Contents() }
        var contents = Contents()
        for name in try FileManager.default.contentsOfDirectory(atPath: directory.path)
        where name.hasSuffix(".json") {
            let file = directory.appending(path: name)
            // A copy of a file has the id of the original.
            if let conversation = try? JSONFile<SavedConversation>(url: file).read(),
                conversation.format == 1, self.file(conversation.id).url.path == file.path
            {
                contents.conversations.append(conversation)
            } else {
                contents.unreadable.append(name)
            }
        }
        contents.unreadable.sort()
        return contents
    }

    /// Writes `conversation`, replacing its previous file.
    func save(_ conversation: SavedConversation) throws {
        try file(conversation.id).write(conversation)
    }

    /// Deletes the file of a conversation, if it exists.
    func delete(_ id: SavedConversation.ID) throws {
        let file = file(id)
        if file.exists { try FileManager.default.removeItem(at: file.url) }
    }

    private func file(_ id: UUID) -> JSONFile<SavedConversation> {
        JSONFile(url: directory.appending(path: "\(id.uuidString).json"))
    }
}
