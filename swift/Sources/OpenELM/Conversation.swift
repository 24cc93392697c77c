import Foundation
import Observation
internal import OpenELMBindings

/// A conversation for a view, with messages, the answer as it is generated, and the last error.
///
///     @State private var conversation = Conversation(model: model)
///     ForEach(conversation.messages) { Text($0.text) }
@MainActor @Observable public final class Conversation {
    /// A message.
    public struct Message: Identifiable, Sendable, Hashable {
        /// The index in the conversation, from 0.
        public let id: Int
        /// The role.
        public let role: LanguageModelSession.Message.Role
        /// The text so far.
        public internal(set) var text: String
    }

    /// All messages, including the answer in progress.
    public private(set) var messages: [Message] = []
    /// A Boolean value that is true while an answer is in progress.
    public private(set) var isResponding = false
    /// The fraction of the prompt processed for the current answer, from 0 to 1.
    public private(set) var promptProgress = 0.0
    /// Counts and times of the last answer.
    public private(set) var stats: GenerationStats?
    /// The error of the last answer, or `nil`.
    public private(set) var error: OpenELMError?
    /// Options for the next answers.
    public var options: GenerationOptions

    @ObservationIgnored private let session: LanguageModelSession
    @ObservationIgnored private var answer: Task<Void, Never>?

    /// Creates a conversation that continues `transcript`, of a session or another conversation.
    public init(
        model: LanguageModel, transcript: [LanguageModelSession.Message],
        template: ChatTemplate? = nil,
        options: GenerationOptions = GenerationOptions()
    ) throws {
        session = try LanguageModelSession(
            model: model, transcript: transcript, template: template)
        self.options = options
        show(transcript)
    }

    /// Restores the conversation in `file`, which ``save(to:)`` wrote.
    public init(
        model: LanguageModel, contentsOf file: URL,
        options: GenerationOptions = GenerationOptions()
    ) async throws {
        session = try await LanguageModelSession(model: model, contentsOf: file)
        self.options = options
        show(try await session.transcript)
    }

    /// Writes the transcript and its KV cache to `file`, replacing a file that this function wrote.
    public func save(to file: URL) async throws { try await session.save(to: file) }

    /// Starts to read the transcript and `promptPrefix`, the beginning of the next prompt; see
    /// ``LanguageModelSession/prewarm(promptPrefix:)``.
    public func prewarm(promptPrefix: String? = nil) {
        session.prewarm(promptPrefix: promptPrefix)
    }

    /// Instructions are no message of the view.
    private func show(_ transcript: [LanguageModelSession.Message]) {
        let shown = transcript.filter { $0.role != .instructions }
        messages = shown.enumerated().map {
            Message(id: $0.offset, role: $0.element.role, text: $0.element.text)
        }
    }

    /// All messages of the conversation, for `init(model:transcript:template:options:)` of another
    /// launch.
    public var transcript: [LanguageModelSession.Message] {
        get async throws { try await session.transcript }
    }

    /// Creates a conversation that begins with `instructions`.
    public init(
        model: LanguageModel, instructions: String? = nil,
        template: ChatTemplate? = nil,
        options: GenerationOptions = GenerationOptions()
    ) throws {
        session = try LanguageModelSession(
            model: model, instructions: instructions, template: template)
        self.options = options
    }

    deinit { answer?.cancel() }

    /// Sends `prompt` and adds the answer to ``messages``. Has no effect while an answer is in
    /// progress.
    public func send(_ prompt: String) {
        guard !isResponding else { return }
        stats = nil
        error = nil
        let running: Running<OpenELMBindings.GenerationStream>
        do {
            running = try session.begin(prompt, options: options)
        } catch {
            self.error = OpenELMError.from(error) as? OpenELMError
            return
        }
        let question = messages.count
        messages.append(Message(id: question, role: .prompt, text: prompt))
        messages.append(Message(id: question + 1, role: .response, text: ""))
        isResponding = true
        promptProgress = 0
        // Releasing the conversation cancels the answer.
        answer = Task { [weak self] in
            do {
                while let event = try await running.next() {
                    guard let self else { return }
                    self.take(GenerationEvent(event))
                }
                await self?.ended(nil)
            } catch is CancellationError {
                await self?.ended(nil)
            } catch {
                await self?.ended(OpenELMError.from(error) as? OpenELMError)
            }
        }
    }

    /// Stops the answer and keeps its text so far, which may be empty, with its prompt.
    public func stop() { answer?.cancel() }

    /// Waits until no answer is in progress.
    public func finish() async { await answer?.value }

    private func take(_ event: GenerationEvent) {
        switch event {
        case .prefill(let processed, let total):
            promptProgress = total == 0 ? 1 : Double(processed) / Double(total)
        case .token(let token): messages[messages.count - 1].text += token.text
        case .finished(_, let statistics): self.stats = statistics
        }
    }

    private func ended(_ error: OpenELMError?) async {
        // A stopped answer may have text that was not delivered. The session has removed the prompt
        // of a failed one.
        if let transcript = try? await session.transcript { show(transcript) }
        isResponding = false
        self.error = error
    }
}
