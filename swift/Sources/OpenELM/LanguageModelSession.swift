internal import OpenELMBindings

/// A conversation with a model. What was read for one answer is not read again for the next.
public final class LanguageModelSession: Sendable {
    private let session: Session

    /// How messages become a prompt.
    public enum Template: Sendable {
        /// That of Apple's OpenELM-Instruct checkpoints.
        case openELMInstruct
        /// That of CoreNet's LoRA recipe (Alpaca).
        case instruction
        /// None: the texts one after the other, for base models.
        case plain
    }

    /// A conversation that begins with `instructions`.
    public convenience init(
        model: LanguageModel, instructions: String? = nil, template: Template = .openELMInstruct
    ) throws {
        let messages = instructions.map { [Message(role: .instructions, text: $0)] } ?? []
        try self.init(model: model, transcript: messages, template: template)
    }

    /// A conversation that goes on after `transcript`, which may be another session's.
    public init(
        model: LanguageModel, transcript: [Message], template: Template = .openELMInstruct
    ) throws {
        session = try translated {
            try Session(
                engine: model.engine, template: ChatTemplate(template),
                messages: transcript.map(ChatMessage.init))
        }
    }

    /// The answer to `prompt`, whole.
    public func respond(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> Response {
        try await streamResponse(to: prompt, options: options).collect()
    }

    /// The answer to `prompt`, piece by piece. One that is stopped is kept as far as it came; one
    /// that fails is not, and its question is withdrawn.
    public func streamResponse(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let session = self.session
        return TextStream(
            events: GenerationEvents {
                try session.respond(prompt: prompt, options: options.bound())
            })
    }

    /// Whether an answer is being written. Until it is whole or cancelled, another question fails
    /// with ``OpenELMError/concurrentRequests``.
    public var isResponding: Bool {
        get async throws {
            let session = self.session
            return try await translated { try await session.isAnswering() }
        }
    }

    /// What was said so far.
    public var transcript: [Message] {
        get async throws {
            let session = self.session
            return try await translated { try await session.messages().map(Message.init) }
        }
    }

    /// An answer that is whole.
    public struct Response: Sendable, Equatable {
        /// Its text.
        public let content: String
        /// Why it ended.
        public let finishReason: FinishReason
        /// Counts and times.
        public let statistics: GenerationStatistics
    }

    /// A message of the conversation.
    public struct Message: Sendable, Equatable, Codable {
        /// What it is in the conversation.
        public enum Role: String, Sendable, Codable {
            /// What the conversation begins with: how to answer.
            case instructions
            /// What was asked.
            case prompt
            /// What the model answered.
            case response
        }

        /// What it is in the conversation.
        public let role: Role
        /// Its text.
        public let text: String

        /// A message.
        public init(role: Role, text: String) {
            self.role = role
            self.text = text
        }
    }
}

extension ChatTemplate {
    fileprivate init(_ template: LanguageModelSession.Template) {
        self =
            switch template {
            case .openELMInstruct: .openElmInstruct
            case .instruction: .instruction
            case .plain: .plain
            }
    }
}

extension ChatMessage {
    fileprivate init(_ message: LanguageModelSession.Message) {
        let role: ChatRole =
            switch message.role {
            case .instructions: .system
            case .prompt: .user
            case .response: .assistant
            }
        self.init(role: role, content: message.text)
    }
}

extension LanguageModelSession.Message {
    fileprivate init(_ message: ChatMessage) {
        let role: Role =
            switch message.role {
            case .system: .instructions
            case .user: .prompt
            case .assistant: .response
            }
        self.init(role: role, text: message.content)
    }
}
