import Foundation
import Observation
import OpenELM

/// The open conversation: its messages, the answer as it is generated, and its file.
@MainActor @Observable final class ChatSession: Identifiable {
    /// A message for a view.
    struct Message: Identifiable, Equatable, Sendable {
        /// The index in the conversation, from 0.
        let id: Int
        let role: LanguageModelSession.Message.Role
        let text: String
    }

    /// The conversation without the answer in progress, as in its file.
    private(set) var saved: SavedConversation
    /// A Boolean value that is true until the answer has ended and is saved.
    private(set) var isResponding = false
    /// A Boolean value that is true if the model's context holds no more messages.
    private(set) var isContextFull = false
    /// The error of the last answer.
    private(set) var problem: String?
    /// The text in the input field.
    var draft = ""

    /// `nil` without a model.
    private var conversation: Conversation?
    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var answer: Task<Void, Never>?
    @ObservationIgnored private var isDiscarded = false
    @ObservationIgnored private let settings: SettingsModel
    @ObservationIgnored private let list: ConversationList
    @ObservationIgnored private let environment: ChatEnvironment

    nonisolated let id: SavedConversation.ID

    init(
        _ saved: SavedConversation, settings: SettingsModel, list: ConversationList,
        environment: ChatEnvironment
    ) {
        id = saved.id
        self.saved = saved
        self.settings = settings
        self.list = list
        self.environment = environment
    }

    /// All messages, including the answer in progress, without the instructions.
    var messages: [Message] {
        if let conversation {
            return conversation.messages.map { Message(id: $0.id, role: $0.role, text: $0.text) }
        }
        let shown = saved.messages.dropFirst(saved.instructions.count)
        return shown.enumerated().map {
            Message(id: $0.offset, role: $0.element.role, text: $0.element.text)
        }
    }

    /// Fraction of the prompt that was read, from 0 to 1; `nil` without an answer in progress.
    var promptProgress: Double? {
        guard isResponding, let share = conversation?.promptProgress, share < 1 else { return nil }
        return share
    }

    /// A Boolean value that is true if the draft can be sent.
    var canSend: Bool {
        let text = draft.trimmingCharacters(in: .whitespacesAndNewlines)
        return conversation != nil && !isResponding && !text.isEmpty
    }

    /// A Boolean value that is true if the last answer can be generated again.
    var canRetry: Bool {
        conversation != nil && !isResponding && saved.messages.last?.role == .response
    }

    /// Sends the draft. After an error it is the draft again.
    func send() {
        guard canSend, let conversation else { return }
        let prompt = draft
        draft = ""
        begin(prompt, in: conversation, replacing: nil)
    }

    /// Generates the last answer again. After an error, or if it is stopped before its first
    /// character, the previous answer stays.
    func retry() {
        guard canRetry, let prompt = saved.messages.dropLast().last, prompt.role == .prompt
        else { return }
        do {
            let fresh = try makeConversation(saved.messages.dropLast(2))
            let previous = conversation
            conversation = fresh
            begin(prompt.text, in: fresh, replacing: previous)
        } catch {
            problem = errorText(error)
        }
    }

    /// Stops the answer and keeps its text so far.
    func stop() { conversation?.stop() }

    /// Waits until the answer has ended and is saved.
    func finish() async { await answer?.value }

    /// Continues the conversation with `model`, after the answer in progress.
    func attach(_ model: LanguageModel) async {
        await finish()
        begin(with: model)
    }

    /// Continues the conversation with `model`. No answer may be in progress.
    func begin(with model: LanguageModel) {
        (self.model, problem, isContextFull) = (model, nil, false)
        do { conversation = try makeConversation(saved.messages) } catch {
            problem = errorText(error)
        }
    }

    /// Stops the answer, saves it, and releases the model.
    func detach() async {
        stop()
        await finish()
        (model, conversation) = (nil, nil)
    }

    /// Stops the answer and saves nothing more.
    func discard() {
        isDiscarded = true
        stop()
    }

    /// Changes the title.
    func rename(to name: String?) { saved.name = name }

    /// Copies the text of a message.
    func copy(_ message: Message) { environment.copy(message.text) }

    /// Copies the conversation as text.
    func copyAll() { environment.copy(saved.text) }

    private func makeConversation(
        _ transcript: some Sequence<LanguageModelSession.Message>
    ) throws -> Conversation? {
        guard let model else { return nil }
        return try Conversation(
            model: model, transcript: Array(transcript),
            template: saved.template.template,
            options: settings.settings.options)
    }

    /// Sends `prompt`. `previous` is the conversation with an earlier answer to it.
    private func begin(
        _ prompt: String, in conversation: Conversation?, replacing previous: Conversation?
    ) {
        guard let conversation else { return }
        (isResponding, problem, isContextFull) = (true, nil, false)
        conversation.options = settings.settings.options
        conversation.send(prompt)
        // Holds this object, so that the answer is saved if the conversation is closed.
        answer = Task {
            await conversation.finish()
            ended(prompt, in: conversation, replacing: previous)
        }
    }

    private func ended(
        _ prompt: String, in conversation: Conversation, replacing previous: Conversation?
    ) {
        isResponding = false
        guard !isDiscarded else { return }
        if let error = conversation.error {
            // The package has removed the prompt from the conversation.
            if let previous {
                self.conversation = previous
            } else if draft.isEmpty {
                draft = prompt
            }
            if case .exceededContextWindowSize = error { isContextFull = true }
            let text = errorText(error)
            problem = text
            environment.announce(localized("The answer failed: %@", text))
            return
        }
        let text = conversation.messages.last?.text ?? ""
        if let previous, text.isEmpty {
            self.conversation = previous
            return
        }
        saved.messages =
            saved.instructions
            + conversation.messages.map {
                LanguageModelSession.Message(role: $0.role, text: $0.text)
            }
        saved.changed = environment.now()
        list.save(saved)
        if let stats = conversation.stats, let size = try? model?.contextSize {
            isContextFull = stats.promptTokens + stats.generatedTokens >= size
        }
        environment.announce(localized("Answer: %@", text))
    }
}
