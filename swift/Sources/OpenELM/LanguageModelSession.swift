internal import OpenELMBindings

/// A template that turns messages into a prompt.
public enum ChatTemplate: Sendable {
    /// The template of Apple's OpenELM-Instruct checkpoints.
    case openELMInstruct
    /// The template of CoreNet's LoRA recipe (Alpaca).
    case instruction
    /// No template: messages are concatenated. For base models.
    case plain
}

/// A conversation with a model. Its KV cache is kept, so the model processes each message once.
public final class LanguageModelSession: Sendable {
    private let chat: Chat

    /// Creates a session that begins with `instructions`.
    public convenience init(
        model: LanguageModel, instructions: String? = nil, template: ChatTemplate = .openELMInstruct
    ) throws {
        let messages = instructions.map { [Message(role: .instructions, text: $0)] } ?? []
        try self.init(model: model, transcript: messages, template: template)
    }

    /// Creates a session that continues `transcript`, also from another session.
    public init(
        model: LanguageModel, transcript: [Message], template: ChatTemplate = .openELMInstruct
    ) throws {
        chat = try translated {
            try newChat(
                model: model.model, template: OpenELMBindings.ChatTemplate(template),
                messages: transcript.map(ChatMessage.init))
        }
    }

    /// Starts to warm up the model, as ``LanguageModel/warmUp()``, and returns at once. Call it when
    /// a prompt is likely to follow. Errors are reported by the next answer.
    public func prewarm() {
        // Fails only if the library has stopped, which the next answer reports.
        try? chat.prewarm()
    }

    /// Returns the complete answer to `prompt`.
    public func respond(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> Response {
        try await streamResponse(to: prompt, options: options).collect()
    }

    /// Streams the answer to `prompt`. The text of a cancelled answer stays in the transcript; a
    /// failed answer is removed with its prompt.
    public func streamResponse(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let chat = self.chat
        return TextStream(
            events: GenerationEvents {
                try chat.respond(prompt: prompt, options: options.ffiOptions())
            })
    }

    /// Begins the answer to `prompt` at once.
    func begin(
        _ prompt: String, options: GenerationOptions
    ) throws -> Running<OpenELMBindings.GenerationStream> {
        try Running(
            translated { try chat.respond(prompt: prompt, options: options.ffiOptions()) })
    }

    /// A Boolean value that is true while an answer is in progress. A second request fails with
    /// ``OpenELMError/concurrentRequests`` until the answer ends or is cancelled.
    public var isResponding: Bool {
        get async throws {
            let chat = self.chat
            return try await translated { try await chat.isAnswering() }
        }
    }

    /// All messages of the conversation.
    public var transcript: [Message] {
        get async throws {
            let chat = self.chat
            return try await translated { try await chat.messages().map(Message.init) }
        }
    }

    /// A complete answer.
    public struct Response: Sendable, Equatable {
        /// The text.
        public let content: String
        /// The reason why the answer ended.
        public let finishReason: FinishReason
        /// Counts and times.
        public let stats: GenerationStats
    }

    /// A message of the conversation.
    public struct Message: Sendable, Equatable, Codable {
        /// The role of a message.
        public enum Role: String, Sendable, Codable {
            /// Instructions at the beginning of the conversation.
            case instructions
            /// A prompt of the user.
            case prompt
            /// An answer of the model.
            case response
        }

        /// The role.
        public let role: Role
        /// The text.
        public let text: String

        /// Creates a message.
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
