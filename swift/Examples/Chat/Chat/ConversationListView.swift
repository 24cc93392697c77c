#if canImport(SwiftUI)
    import SwiftUI

    /// The saved conversations, with the memory in use.
    struct ConversationListView: View {
        let chat: ChatModel
        @State private var isRenaming = false
        @State private var renamed: SavedConversation.ID?
        @State private var title = ""

        var body: some View {
            List {
                Button("New conversation", systemImage: "square.and.pencil") {
                    chat.newConversation()
                }
                if let problem = chat.conversations.problem { ProblemText(text: problem) }
                if let problem = chat.settings.problem { ProblemText(text: problem) }
                ForEach(chat.conversations.conversations) { conversation in
                    row(conversation)
                }
            }
            .navigationTitle("Conversations")
            .alert("Rename the conversation", isPresented: $isRenaming) {
                TextField("Title", text: $title)
                Button("Rename") {
                    if let renamed { chat.rename(renamed, to: title) }
                }
                Button("Cancel", role: .cancel) {}
            }
            .safeAreaInset(edge: .bottom) {
                if let memory = chat.loader.memory { MemoryGauge(memory: memory).padding() }
            }
        }

        private func row(_ conversation: SavedConversation) -> some View {
            let isOpen = conversation.id == chat.session.id
            return Button {
                chat.open(conversation.id)
            } label: {
                VStack(alignment: .leading) {
                    Text(conversation.title).lineLimit(1)
                    Text(conversation.changed, style: .date).font(.caption)
                        .foregroundStyle(.secondary)
                }
                .frame(maxWidth: .infinity, alignment: .leading)
            }
            .buttonStyle(.plain)
            .listRowBackground(isOpen ? Color.accentColor.opacity(0.2) : nil)
            .accessibilityAddTraits(isOpen ? .isSelected : [])
            .contextMenu {
                Button("Rename…", systemImage: "pencil") { rename(conversation) }
                ShareLink(item: conversation.text)
                Button("Delete", systemImage: "trash", role: .destructive) {
                    chat.delete(conversation.id)
                }
            }
            .swipeActions {
                Button("Delete", systemImage: "trash", role: .destructive) {
                    chat.delete(conversation.id)
                }
                Button("Rename…", systemImage: "pencil") { rename(conversation) }
            }
        }

        private func rename(_ conversation: SavedConversation) {
            (renamed, title, isRenaming) = (conversation.id, conversation.title, true)
        }
    }

    /// A gauge of the memory in use.
    struct MemoryGauge: View {
        let memory: MemoryReading

        var body: some View {
            Gauge(value: memory.share) {
                Text("Memory: \(memory.text)").font(.caption)
            }
        }
    }
#endif
