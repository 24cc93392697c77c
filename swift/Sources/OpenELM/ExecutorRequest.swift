/// A request of an executor of FoundationModels, in this package's types: a conversation that ends
/// with the prompt to answer.
struct ExecutorRequest: Sendable, Equatable {
    typealias Message = LanguageModelSession.Message

    /// The messages before the prompt: instructions, if any, and then a response for each prompt.
    let history: [Message]
    /// The prompt to answer.
    private(set) var prompt: String
    /// The options of the answer.
    private(set) var options: GenerationOptions

    /// Creates a request from all messages of a transcript, which end with the prompt.
    init(
        transcript: [Message], options: GenerationOptions = GenerationOptions()
    ) throws(UnsupportedTranscript) {
        var messages = try Self.messages(of: transcript)
        guard let last = messages.popLast(), last.role == .prompt else {
            throw UnsupportedTranscript(
                index: transcript.indices.last,
                message: "expected a prompt at the end of the transcript")
        }
        history = messages
        prompt = last.text
        self.options = options
    }

    /// Constrains the answer to JSON of a JSON schema, and adds the schema to the prompt if
    /// `inPrompt`.
    mutating func constrain(toJSONSchema schema: String, inPrompt: Bool) {
        options = options.guided(by: GenerationSchema(json: schema))
        if inPrompt { prompt += "\n\nAnswer with JSON of this schema: \(schema)" }
    }

    /// The messages of a transcript as a session accepts them. Instructions at the beginning are
    /// joined, and so are successive responses; a prompt without a response has an empty one.
    static func messages(of transcript: [Message]) throws(UnsupportedTranscript) -> [Message] {
        var messages: [Message] = []
        for (index, message) in transcript.enumerated() {
            switch (messages.last?.role, message.role) {
            case (nil, .instructions) where message.text.isEmpty: break
            case (nil, .response), (.instructions?, .response):
                throw UnsupportedTranscript(
                    index: index, message: "expected a prompt before the first response")
            case (.instructions?, .instructions), (.response?, .response):
                let last = messages.removeLast()
                messages.append(
                    Message(role: last.role, text: last.text + "\n" + message.text))
            case (.prompt?, .instructions), (.response?, .instructions):
                throw UnsupportedTranscript(
                    index: index, message: "expected instructions at the beginning only")
            case (.prompt?, .prompt):
                messages += [Message(role: .response, text: ""), message]
            default: messages.append(message)
            }
        }
        return messages
    }
}

/// A transcript that no session of this package can continue.
struct UnsupportedTranscript: Error, Equatable {
    /// The index of the message, if there is one.
    let index: Int?
    /// The expectation.
    let message: String
}

/// An event of an answer to an ``ExecutorRequest``.
enum ExecutorEvent: Sendable, Equatable {
    /// New text, and the number of tokens since the event before.
    case text(String, tokens: Int)
    /// The token counts of the complete answer.
    case usage(promptTokens: Int, cachedTokens: Int, generatedTokens: Int)
}

/// Answers requests with a model. Each request has the whole transcript, so the last session is
/// kept: a request that extends it continues with its KV cache.
final class ExecutorResponder: Sendable {
    private let model: LanguageModel
    private let template: ChatTemplate?
    private let last = LastSession()

    init(model: LanguageModel, template: ChatTemplate?) {
        self.model = model
        self.template = template
    }

    /// Answers `request` and sends its events. A context that is full before the answer ends is
    /// ``OpenELMError/exceededContextWindowSize(tokens:context:)``.
    func respond(
        to request: ExecutorRequest, send: (ExecutorEvent) async -> Void
    ) async throws {
        let session = try await session(after: request.history)
        let events = session.streamResponse(to: request.prompt, options: request.options)
            .withEvents()
        var answer = ""
        var tokens = 0
        for try await event in events {
            switch event {
            case .prefill: break
            case .token(let token):
                tokens += 1
                guard !token.text.isEmpty else { break }
                answer += token.text
                await send(.text(token.text, tokens: tokens))
                tokens = 0
            case .finished(let reason, let stats):
                switch reason {
                case .cancelled: throw CancellationError()
                case .context:
                    throw OpenELMError.exceededContextWindowSize(
                        tokens: stats.promptTokens + stats.generatedTokens,
                        context: try model.contextSize)
                case .eos, .stop, .length: break
                }
                await send(
                    .usage(
                        promptTokens: stats.promptTokens, cachedTokens: stats.cachedTokens,
                        generatedTokens: stats.generatedTokens))
            }
        }
        let messages =
            request.history + [
                ExecutorRequest.Message(role: .prompt, text: request.prompt),
                ExecutorRequest.Message(role: .response, text: answer),
            ]
        await last.keep(session, messages: messages)
    }

    /// Warms up the model, reads `transcript`, which may end with the beginning of the next prompt,
    /// and keeps its session for the next request, which reports errors.
    func prewarm(transcript: [ExecutorRequest.Message]) async {
        guard var history = try? ExecutorRequest.messages(of: transcript) else { return }
        let prefix = history.last?.role == .prompt ? history.removeLast().text : nil
        guard let session = try? await session(after: history) else { return }
        session.prewarm(promptPrefix: prefix)
        await last.keep(session, messages: history)
    }

    private func session(
        after history: [ExecutorRequest.Message]
    ) async throws -> LanguageModelSession {
        if let session = await last.take(after: history) { return session }
        return try LanguageModelSession(model: model, transcript: history, template: template)
    }
}

/// The session of the last request. A session that answers is taken out, so that requests at the
/// same time have sessions of their own.
private actor LastSession {
    private var session: LanguageModelSession?
    private var messages: [ExecutorRequest.Message] = []

    func take(after history: [ExecutorRequest.Message]) -> LanguageModelSession? {
        guard messages == history, let session else { return nil }
        self.session = nil
        return session
    }

    func keep(_ session: LanguageModelSession, messages: [ExecutorRequest.Message]) {
        self.session = session
        self.messages = messages
    }
}
