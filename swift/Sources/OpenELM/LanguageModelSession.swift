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
    public init(
        model: LanguageModel, instructions: String? = nil, template: Template = .openELMInstruct
    ) throws {
        let template: ChatTemplate =
            switch template {
            case .openELMInstruct: .openElmInstruct
            case .instruction: .instruction
            case .plain: .plain
            }
        let messages = instructions.map { [ChatMessage(role: .system, content: $0)] } ?? []
        session = try translated {
            try Session(engine: model.engine, template: template, messages: messages)
        }
    }

    /// The answer to `prompt`, whole.
    public func respond(
        to prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> String {
        try await streamResponse(to: prompt, options: options).withEvents().text()
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

    /// A message of the conversation.
    public struct Message: Sendable, Equatable {
        /// Who wrote it.
        public enum Role: Sendable { case instructions, user, model }
        /// Who wrote it.
        public let role: Role
        /// Its text.
        public let text: String
    }

    /// What was said so far.
    public var transcript: [Message] {
        get async throws {
            let session = self.session
            return try await translated {
                try await session.messages().map { message in
                    let role: Message.Role =
                        switch message.role {
                        case .system: .instructions
                        case .user: .user
                        case .assistant: .model
                        }
                    return Message(role: role, text: message.content)
                }
            }
        }
    }
}
