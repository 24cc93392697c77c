import Observation

/// A conversation for a view to show: what was said, the answer as it comes, and what went wrong.
///
///     @State private var conversation = Conversation(model: model)
///     ForEach(conversation.messages) { Text($0.text) }
@MainActor @Observable public final class Conversation {
    /// A message.
    public struct Message: Identifiable, Sendable, Equatable {
        /// Its place in the conversation, from 0.
        public let id: Int
        /// What it is in the conversation.
        public let role: LanguageModelSession.Message.Role
        /// Its text, as far as it came.
        public internal(set) var text: String
    }

    /// What was said, the answer that is being written included.
    public private(set) var messages: [Message] = []
    /// Whether an answer is being written.
    public private(set) var isResponding = false
    /// Share of the prompt that the model has read, from 0 to 1, while it answers.
    public private(set) var promptProgress = 0.0
    /// Counts and times of the last answer.
    public private(set) var stats: GenerationStats?
    /// What went wrong with the last answer; `nil` if nothing did.
    public private(set) var error: OpenELMError?
    /// How answers are generated.
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

    /// Asks `prompt`. The answer comes to ``messages``; while one comes, nothing else can be asked.
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
        // Whoever lets go of the conversation ends the answer.
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

    /// Stops the answer; what came of it stays.
    public func stop() { answer?.cancel() }

    /// Waits until no answer is being written.
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
