internal import OpenELMBindings

/// The template that turns messages into a prompt.
public enum ChatTemplate: Sendable {
    /// The template of Apple's OpenELM-Instruct checkpoints.
    case openELMInstruct
    /// The template of CoreNet's LoRA recipe (Alpaca).
    case instruction
    /// No template: the texts one after the other, for base models.
    case plain
}

/// A conversation with a model. The model reads each message once: its KV cache is kept.
public final class LanguageModelSession: Sendable {
    private let chat: Chat

    /// A conversation that begins with `instructions`.
    public convenience init(
        model: LanguageModel, instructions: String? = nil, template: ChatTemplate = .openELMInstruct
    ) throws {
        let messages = instructions.map { [Message(role: .instructions, text: $0)] } ?? []
        try self.init(model: model, transcript: messages, template: template)
    }

    /// A conversation that continues `transcript`, which may be another session's.
    public init(
        model: LanguageModel, transcript: [Message], template: ChatTemplate = .openELMInstruct
    ) throws {
        chat = try translated {
            try newChat(
                model: model.model, template: OpenELMBindings.ChatTemplate(template),
                messages: transcript.map(ChatMessage.init))
        }
    }

    /// The whole answer to `prompt`.
    public func respond(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> Response {
        try await streamResponse(to: prompt, options: options).collect()
    }

    /// The answer to `prompt`, piece by piece. A stopped answer is kept as far as it came; a failed
    /// one is not, and its question is withdrawn.
    public func streamResponse(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let chat = self.chat
        return TextStream(
            events: GenerationEvents {
                try chat.respond(prompt: prompt, options: options.ffiOptions())
            })
    }

    /// True while an answer is under way. Until it ends or is cancelled, another question fails
    /// with ``OpenELMError/concurrentRequests``.
    public var isResponding: Bool {
        get async throws {
            let chat = self.chat
            return try await translated { try await chat.isAnswering() }
        }
    }

    /// All messages so far.
    public var transcript: [Message] {
        get async throws {
            let chat = self.chat
            return try await translated { try await chat.messages().map(Message.init) }
        }
    }

    /// A whole answer.
    public struct Response: Sendable, Equatable {
        /// Its text.
        public let content: String
        /// The reason why it ended.
        public let finishReason: FinishReason
        /// Counts and times.
        public let stats: GenerationStats
    }

    /// A message of the conversation.
    public struct Message: Sendable, Equatable, Codable {
        /// The role of a message.
        public enum Role: String, Sendable, Codable {
            /// Instructions that begin the conversation.
            case instructions
            /// A question.
            case prompt
            /// An answer of the model.
            case response
        }

        /// Its role.
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

extension OpenELMBindings.ChatTemplate {
    fileprivate init(_ template: ChatTemplate) {
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
