#if canImport(SwiftUI)
    import SwiftUI

    /// A sidebar of conversations, the open conversation, and the sheets of the app.
    struct ChatView: View {
        @Bindable var chat: ChatModel

        var body: some View {
            NavigationSplitView {
                ConversationListView(chat: chat)
                    .toolbar {
                        ToolbarItem {
                            Button("Models", systemImage: "square.stack.3d.up") {
                                chat.sheet = .models
                            }
                        }
                        ToolbarItem {
                            Button("Training", systemImage: "graduationcap") {
                                chat.sheet = .training
                            }
                        }
                        ToolbarItem {
                            Button("Settings", systemImage: "gear") { chat.sheet = .settings }
                        }
                    }
            } detail: {
                ConversationView(chat: chat, session: chat.session) {
                    chat.sheet = .models
                }
                .id(chat.session.id)
            }
            .sheet(item: $chat.sheet) { sheet in
                NavigationStack {
                    content(of: sheet)
                        .toolbar {
                            ToolbarItem(placement: .confirmationAction) {
                                Button("Done") { chat.sheet = nil }
                            }
                        }
                }
                .frame(minWidth: 320, minHeight: 400)
            }
            .task { await chat.start(LaunchArguments()) }
            .task {
                while !Task.isCancelled {
                    chat.loader.readMemory()
                    try? await Task.sleep(for: .seconds(1))
                }
            }
        }

        @ViewBuilder private func content(of sheet: ChatSheet) -> some View {
            switch sheet {
            case .models: ModelListView(chat: chat)
            case .training: TrainingView(chat: chat, training: chat.training)
            case .settings: SettingsView(model: chat.settings)
            }
        }
    }

    /// An error in a list or below a conversation.
    struct ProblemText: View {
        let text: String

        var body: some View {
            Label {
                Text(text)
            } icon: {
                Image(systemName: "exclamationmark.triangle")
            }
            .foregroundStyle(.red)
        }
    }
#endif
