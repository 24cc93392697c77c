#if canImport(SwiftUI)
    import SwiftUI

    /// The messages of a conversation and an input field.
    struct ConversationView: View {
        let chat: ChatModel
        @Bindable var session: ChatSession
        /// Shows the list of models.
        let showModels: @MainActor () -> Void

        var body: some View {
            VStack(spacing: 0) {
                messages
                ModelStateView(loader: chat.loader, showModels: showModels)
                if let share = session.promptProgress {
                    ProgressView("Reading the prompt", value: share).padding(.horizontal)
                }
                if let problem = session.problem ?? chat.adapters.problem {
                    ProblemText(text: problem).padding(.horizontal)
                }
                if session.isContextFull { contextFull }
                entry.padding()
            }
            .navigationTitle(session.saved.title)
            .toolbar {
                ToolbarItem { AdapterMenu(adapters: chat.adapters).disabled(session.isResponding) }
                ToolbarItem { ShareLink(item: session.saved.text) }
                ToolbarItem {
                    Button("Copy the conversation", systemImage: "doc.on.doc") { session.copyAll() }
                }
            }
        }

        private var messages: some View {
            ScrollViewReader { reader in
                ScrollView {
                    LazyVStack(spacing: 8) {
                        ForEach(session.messages) { message in
                            MessageRow(message: message) { session.copy(message) }
                        }
                        if session.canRetry {
                            Button("Try again", systemImage: "arrow.clockwise") { session.retry() }
                                .accessibilityHint("Generates the last answer again.")
                        }
                    }
                    .padding(.vertical)
                }
                .onChange(of: session.messages.last) { _, last in
                    if let last { reader.scrollTo(last.id, anchor: .bottom) }
                }
            }
        }

        private var contextFull: some View {
            VStack(spacing: 8) {
                Text("This conversation fills the model's context.").font(.headline)
                Button("Continue in a new conversation") { chat.continueInNewConversation() }
                    .accessibilityHint("Keeps the instructions.")
            }
            .padding(.horizontal)
        }

        private var entry: some View {
            HStack {
                TextField("Message", text: $session.draft, axis: .vertical)
                    .onSubmit { session.send() }
                if session.isResponding {
                    Button("Stop", systemImage: "stop.circle.fill") { session.stop() }
                } else {
                    Button("Send", systemImage: "arrow.up.circle.fill") { session.send() }
                        .disabled(!session.canSend)
                }
            }
            .labelStyle(.iconOnly)
        }
    }

    /// A message: prompts on the right, answers on the left.
    private struct MessageRow: View {
        let message: ChatSession.Message
        let copy: @MainActor () -> Void

        private var isPrompt: Bool { message.role == .prompt }
        private var spoken: LocalizedStringKey {
            isPrompt ? "You: \(message.text)" : "Model: \(message.text)"
        }

        var body: some View {
            Text(verbatim: message.text.isEmpty ? "…" : message.text)
                .textSelection(.enabled)
                .padding()
                .background(
                    isPrompt ? Color.accentColor.opacity(0.2) : Color.secondary.opacity(0.1),
                    in: .rect(cornerRadius: 12)
                )
                .frame(maxWidth: .infinity, alignment: isPrompt ? .trailing : .leading)
                .padding(.horizontal)
                .accessibilityLabel(spoken)
                .contextMenu {
                    Button("Copy", systemImage: "doc.on.doc", action: copy)
                    ShareLink(item: message.text)
                }
        }
    }

    /// The state of a model that is not loaded.
    private struct ModelStateView: View {
        let loader: ModelLoader
        let showModels: @MainActor () -> Void

        var body: some View {
            switch loader.state {
            case .ready: EmptyView()
            case .loading(let share):
                ProgressView("Loading the model", value: share).padding(.horizontal)
            case .empty: Button("Choose a model", systemImage: "tray", action: showModels)
            case .failed(let why):
                VStack(spacing: 8) {
                    ProblemText(text: why)
                    Button("Choose a model", systemImage: "tray", action: showModels)
                }
                .padding(.horizontal)
            }
        }
    }
#endif
