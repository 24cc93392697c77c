import Foundation
import Observation

/// The saved conversations, the last changed one first.
@MainActor @Observable final class ConversationList {
    private(set) var conversations: [SavedConversation] = []
    /// The last error of a file.
    private(set) var problem: String?

    @ObservationIgnored private let store: ConversationStore

    init(store: ConversationStore) { self.store = store }

    /// Reads the conversations from their files. A file that cannot be read is reported and left.
    func load() {
        do {
            let contents = try store.load()
            conversations = contents.conversations.sorted { $0.changed > $1.changed }
            problem =
                contents.unreadable.isEmpty
                ? nil
                : localized(
                    "These files of conversations could not be read and were left as they are: %@",
                    contents.unreadable.joined(separator: ", "))
        } catch {
            problem = localized("The conversations could not be read: %@", errorText(error))
        }
    }

    /// Saves `conversation` and moves it to its place in the list. After an error it is in the list
    /// until the app ends; the next change is saved again.
    func save(_ conversation: SavedConversation) {
        conversations.removeAll { $0.id == conversation.id }
        let place = conversations.firstIndex { $0.changed <= conversation.changed }
        conversations.insert(conversation, at: place ?? conversations.endIndex)
        do {
            try store.save(conversation)
            problem = nil
        } catch {
            problem = localized("The conversation could not be saved: %@", errorText(error))
        }
    }

    /// Gives a conversation a title; an empty one restores the beginning of the first prompt.
    func rename(_ id: SavedConversation.ID, to title: String) {
        guard var conversation = conversations.first(where: { $0.id == id }) else { return }
        let title = title.trimmingCharacters(in: .whitespacesAndNewlines)
        conversation.name = title.isEmpty ? nil : title
        save(conversation)
    }

    /// Deletes a conversation and its file. After an error it stays in the list.
    func delete(_ id: SavedConversation.ID) {
        do {
            try store.delete(id)
            conversations.removeAll { $0.id == id }
            problem = nil
        } catch {
            problem = localized("The conversation could not be deleted: %@", errorText(error))
        }
    }
}
