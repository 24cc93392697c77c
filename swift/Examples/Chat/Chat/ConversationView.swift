#if canImport(SwiftUI)
    import OpenELM
    import SwiftUI

    /// The messages and an input field.
    struct ConversationView: View {
        let conversation: Conversation
        /// An error from outside the conversation.
        let problem: String?
        @State private var prompt = ""

        var body: some View {
            VStack(spacing: 0) {
                ScrollViewReader { reader in
                    ScrollView {
                        ForEach(conversation.messages) { MessageRow(message: $0).id($0.id) }
                    }
                    .onChange(of: conversation.messages.last) { _, last in
                        if let last { reader.scrollTo(last.id, anchor: .bottom) }
                    }
                }
                if conversation.isResponding && conversation.promptProgress < 1 {
                    ProgressView("Reading", value: conversation.promptProgress)
                        .padding(.horizontal)
                }
                if let words = conversation.error.map(words) ?? problem {
                    Text(words).foregroundStyle(.red).padding(.horizontal)
                }
                entry.padding()
            }
        }

        private var entry: some View {
            HStack {
                TextField("Say something", text: $prompt, axis: .vertical).onSubmit { send() }
                if conversation.isResponding {
                    Button("Stop", systemImage: "stop.circle.fill") { conversation.stop() }
                } else {
                    Button("Send", systemImage: "arrow.up.circle.fill", action: send)
                        .disabled(prompt.isEmpty)
                }
            }
            .labelStyle(.iconOnly)
        }

        private func send() {
            guard !prompt.isEmpty, !conversation.isResponding else { return }
            conversation.send(prompt)
            prompt = ""
        }
    }

    /// A message: prompts on the right, answers on the left.
    private struct MessageRow: View {
        let message: Conversation.Message

        private var isPrompt: Bool { message.role == .prompt }

        var body: some View {
            Text(message.text.isEmpty ? "…" : message.text)
                .textSelection(.enabled)
                .padding()
                .background(
                    isPrompt ? Color.accentColor.opacity(0.2) : Color.secondary.opacity(0.1),
                    in: .rect(cornerRadius: 12)
                )
                .frame(maxWidth: .infinity, alignment: isPrompt ? .trailing : .leading)
                .padding(.horizontal)
        }
    }
#endif
