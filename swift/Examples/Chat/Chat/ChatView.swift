#if canImport(SwiftUI)
    import OpenELM
    import SwiftUI
    import UniformTypeIdentifiers

    /// A sidebar of models, and the conversation.
    struct ChatView: View {
        let chat: ChatModel
        @State private var isPicking = false
        /// The purpose of the folder picker.
        @State private var pick = Pick.model

        var body: some View {
            NavigationSplitView {
                ModelList(chat: chat) { choose(.model) }
            } detail: {
                detail.navigationTitle(chat.folder?.lastPathComponent ?? "OpenELM")
                    .toolbar {
                        ToolbarItem {
                            Button("New", systemImage: "square.and.pencil") { chat.startOver() }
                                .disabled(chat.conversation == nil)
                        }
                        ToolbarItem {
                            AdapterMenu(chat: chat) { choose(.adapter) }
                                .disabled(chat.conversation == nil)
                        }
                    }
            }
            .fileImporter(isPresented: $isPicking, allowedContentTypes: [.folder]) { result in
                guard case .success(let folder) = result else { return }
                switch pick {
                case .model: chat.open(folder)
                case .adapter: Task { await chat.addAdapter(folder) }
                }
            }
            .task {
                chat.scanDocuments()
                while !Task.isCancelled {
                    chat.readMemory()
                    try? await Task.sleep(for: .seconds(1))
                }
            }
        }

        @ViewBuilder private var detail: some View {
            switch chat.state {
            case .empty: Notice(title: "No model", image: "tray", text: "Choose one from the list.")
            case .loading(let share):
                ProgressView("Loading", value: share).padding().frame(maxWidth: 320)
            case .failed(let why):
                Notice(title: "Not loaded", image: "exclamationmark.triangle", text: why)
            case .ready:
                if let conversation = chat.conversation {
                    ConversationView(conversation: conversation, problem: chat.problem)
                }
            }
        }

        private enum Pick { case model, adapter }

        private func choose(_ pick: Pick) {
            self.pick = pick
            isPicking = true
        }
    }

    /// A placeholder text.
    private struct Notice: View {
        let title: String
        let image: String
        let text: String

        var body: some View {
            VStack(spacing: 12) {
                Label(title, systemImage: image).font(.headline)
                Text(text).foregroundStyle(.secondary)
            }
            .padding()
        }
    }
#endif
