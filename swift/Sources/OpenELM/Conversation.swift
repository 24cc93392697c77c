import Observation

/// A conversation for a view: messages, the answer as it is generated, and the last error.
///
///     @State private var conversation = Conversation(model: model)
///     ForEach(conversation.messages) { Text($0.text) }
@MainActor @Observable public final class Conversation {
    /// A message.
    public struct Message: Identifiable, Sendable, Equatable {
        /// Its index in the conversation, from 0.
        public let id: Int
        /// Its role.
        public let role: LanguageModelSession.Message.Role
        /// Its text so far.
        public internal(set) var text: String
    }

    /// All messages, with the answer under way.
    public private(set) var messages: [Message] = []
    /// True while an answer is under way.
    public private(set) var isResponding = false
    /// Share of the prompt that the model has read, from 0 to 1, while it answers.
    public private(set) var promptProgress = 0.0
    /// Counts and times of the last answer.
    public private(set) var stats: GenerationStats?
    /// The error of the last answer; `nil` if there was none.
    public private(set) var error: OpenELMError?
    /// Options of the next answers.
    public var options: GenerationOptions

    @ObservationIgnored private let session: LanguageModelSession
    @ObservationIgnored private var answer: Task<Void, Never>?

    /// A conversation that begins with `instructions`.
    public init(
        model: LanguageModel, instructions: String? = nil,
        template: ChatTemplate = .openELMInstruct,
        options: GenerationOptions = GenerationOptions()
    ) throws {
        session = try LanguageModelSession(
            model: model, instructions: instructions, template: template)
        self.options = options
    }

    deinit { answer?.cancel() }

    /// Sends `prompt`. The answer is added to ``messages``; does nothing while one is under way.
    public func send(_ prompt: String) {
        guard !isResponding else { return }
        let question = messages.count
        messages.append(Message(id: question, role: .prompt, text: prompt))
        messages.append(Message(id: question + 1, role: .response, text: ""))
        isResponding = true
        promptProgress = 0
        stats = nil
        error = nil
        let events = session.streamResponse(to: prompt, options: options).withEvents()
        // Releasing the conversation cancels the answer.
        answer = Task { [weak self] in
            do {
                for try await event in events {
                    guard let self else { return }
                    self.take(event)
                }
                self?.ended(nil)
            } catch is CancellationError {
                self?.ended(nil)
            } catch {
                self?.ended(OpenELMError.from(error) as? OpenELMError)
            }
        }
    }

    /// Stops the answer; its text so far is kept.
    public func stop() { answer?.cancel() }

    /// Waits until no answer is under way.
    public func finish() async { await answer?.value }

    private func take(_ event: GenerationEvent) {
        switch event {
        case .prefill(let processed, let total):
            promptProgress = total == 0 ? 1 : Double(processed) / Double(total)
        case .token(_, let text): messages[messages.count - 1].text += text
        case .finished(_, let statistics): self.stats = statistics
        }
    }

    private func ended(_ error: OpenELMError?) {
        isResponding = false
        self.error = error
        // The session has withdrawn the question.
        if error != nil { messages.removeLast(2) }
    }
}
