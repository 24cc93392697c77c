import Foundation
internal import OpenELMBindings

/// A template that turns messages into a prompt.
public enum ChatTemplate: String, Sendable, Codable, CaseIterable {
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
    private let draft: DraftModel?

    /// Creates a session that begins with `instructions`.
    ///
    /// - Parameters:
    ///   - model: The model.
    ///   - instructions: Background for the conversation.
    ///   - template: The template of prompts; `nil` is ``LanguageModel/chatTemplate``.
    ///   - draft: A smaller model that drafts tokens.
    public convenience init(
        model: LanguageModel, instructions: String? = nil, template: ChatTemplate? = nil,
        draft: DraftModel? = nil
    ) throws {
        let messages = instructions.map { [Message(role: .instructions, text: $0)] } ?? []
        try self.init(model: model, transcript: messages, template: template, draft: draft)
    }

    /// Creates a session that continues `transcript`, also from another session. The transcript may
    /// begin with instructions, and ends with a response.
    public init(
        model: LanguageModel, transcript: [Message], template: ChatTemplate? = nil,
        draft: DraftModel? = nil
    ) throws {
        chat = try translated {
            try newChat(
                model: model.model,
                template: OpenELMBindings.ChatTemplate(template ?? model.chatTemplate),
                messages: transcript.map(ChatMessage.init))
        }
        self.draft = draft
    }

    /// Restores the session in `file`, which ``save(to:)`` wrote, with its template. With the same
    /// model and adapters the next answer does not read the messages again.
    public init(model: LanguageModel, contentsOf file: URL, draft: DraftModel? = nil) async throws {
        let path = try filePath(file, "file")
        let loaded = model.model
        chat = try await translated { try await loadChat(model: loaded, path: path) }
        self.draft = draft
    }

    /// Writes the transcript and its KV cache to `file`, replacing a file that this function wrote.
    public func save(to file: URL) async throws {
        let chat = self.chat
        let path = try filePath(file, "file")
        try await translated { try await chat.save(path: path) }
    }

    /// Starts to warm up the model, as ``LanguageModel/warmUp()``, and to read the transcript and
    /// `promptPrefix`, the beginning of the next prompt, and returns at once. The next answer then
    /// begins sooner. Errors are reported by the next answer.
    public func prewarm(promptPrefix: String? = nil) {
        // Fails only if the library has stopped, which the next answer reports.
        try? chat.prewarm(prefix: promptPrefix ?? "")
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
        let (chat, draft) = (self.chat, self.draft)
        return TextStream(
            events: GenerationEvents {
                try chat.respond(
                    prompt: prompt, options: options.ffiOptions(),
                    with: requestOptions(options, draft))
            })
    }

    /// Begins the answer to `prompt` at once.
    func begin(
        _ prompt: String, options: GenerationOptions
    ) throws -> Running<OpenELMBindings.GenerationStream> {
        try Running(
            translated {
                try chat.respond(
                    prompt: prompt, options: options.ffiOptions(),
                    with: requestOptions(options, draft))
            })
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

    /// The number of messages after the instructions that the last prompt left out; see
    /// ``ContextOverflow/dropOldestTurns``.
    public var droppedMessages: Int {
        get throws { Int(clamping: try translated { try chat.droppedMessages() }) }
    }

    /// A complete answer.
    public struct Response: Sendable, Hashable, Codable {
        /// The text.
        public let content: String
        /// The reason why the answer ended.
        public let finishReason: FinishReason
        /// Counts and times.
        public let stats: GenerationStats
    }

    /// A message of the conversation.
    public struct Message: Sendable, Hashable, Codable {
        /// The role of a message.
        public enum Role: String, Sendable, Codable, CaseIterable {
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

extension LanguageModel {
    /// Returns the number of tokens of `transcript` in the template: of the prompt if it ends with
    /// one, otherwise of all that comes before the next prompt.
    public func tokenCount(
        of transcript: [LanguageModelSession.Message], template: ChatTemplate? = nil
    ) throws -> Int {
        let count = try translated {
            try OpenELMBindings.tokenCount(
                model: model,
                template: OpenELMBindings.ChatTemplate(template ?? chatTemplate),
                messages: transcript.map(ChatMessage.init))
        }
        return Int(clamping: count)
    }
}

extension ChatTemplate {
    init(_ template: OpenELMBindings.ChatTemplate) {
        self =
            switch template {
            case .openElmInstruct: .openELMInstruct
            case .instruction: .instruction
            case .plain: .plain
            }
    }
}

extension OpenELMBindings.ChatTemplate {
    init(_ template: ChatTemplate) {
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
