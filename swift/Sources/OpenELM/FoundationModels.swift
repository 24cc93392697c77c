#if canImport(FoundationModels, _version: 2)
    public import Foundation
    public import FoundationModels

    /// An OpenELM model for FoundationModels' `LanguageModelSession`, on OS 27. It answers with
    /// text, or with values of a schema: it has no tools and reads no images.
    ///
    ///     import FoundationModels
    ///     import struct OpenELM.OpenELMLanguageModel
    ///
    ///     let model = try await OpenELMLanguageModel(folder: folder)
    ///     let session = LanguageModelSession(model: model, instructions: "Answer briefly.")
    ///
    /// The session's errors are FoundationModels' `LanguageModelError` where it has a case, and
    /// ``OpenELMError`` otherwise.
    @available(iOS 27, macOS 27, visionOS 27, *)
    public struct OpenELMLanguageModel: FoundationModels.LanguageModel {
        /// The options of requests, where a request has none of its own.
        public var options: GenerationOptions
        let responder: ExecutorResponder
        private let id = UUID()

        /// Creates a model that answers with the loaded `model`.
        ///
        /// - Parameters:
        ///   - model: A loaded model.
        ///   - template: The template that turns a transcript into a prompt; `nil` is the model's.
        ///   - options: The options of requests, where a request has none of its own.
        public init(
            _ model: OpenELM.LanguageModel, template: ChatTemplate? = nil,
            options: GenerationOptions = GenerationOptions()
        ) {
            responder = ExecutorResponder(model: model, template: template)
            self.options = options
        }

        /// Loads the model in `folder`. Calls `progress` with the fraction loaded, from 0 to 1.
        public init(
            folder: URL, template: ChatTemplate? = nil,
            options: GenerationOptions = GenerationOptions(),
            loadOptions: LoadOptions = LoadOptions(),
            progress: @Sendable (Double) -> Void = { _ in }
        ) async throws {
            self.init(
                try await OpenELM.LanguageModel(
                    folder: folder, options: loadOptions, progress: progress),
                template: template, options: options)
        }

        /// The capabilities beyond text.
        public var capabilities: LanguageModelCapabilities {
            LanguageModelCapabilities([.guidedGeneration])
        }

        /// The identity of the model, by which FoundationModels chooses the executor.
        public var executorConfiguration: Executor.Configuration { Executor.Configuration(id: id) }

        /// The executor, which FoundationModels creates and calls.
        public struct Executor: LanguageModelExecutor {
            /// The identity of a model.
            public struct Configuration: Hashable, Sendable {
                let id: UUID
            }

            /// The model of this executor.
            public typealias Model = OpenELMLanguageModel

            /// Creates an executor. It holds no model, because FoundationModels keeps executors.
            public init(configuration: Configuration) throws {}

            /// Warms up the model, and prepares a session that continues `transcript`.
            public func prewarm(model: OpenELMLanguageModel, transcript: Transcript) {
                guard let messages = try? transcript.compactMap(message(of:)) else { return }
                Task { await model.responder.prewarm(transcript: messages) }
            }

            /// Answers the last prompt of the request's transcript.
            public func respond(
                to request: LanguageModelExecutorGenerationRequest, model: OpenELMLanguageModel,
                streamingInto channel: LanguageModelExecutorGenerationChannel
            ) async throws {
                if let tool = request.enabledToolDefinitions.first {
                    throw unsupported(.toolCalling, "expected no tools, found \(tool.name)")
                }
                do {
                    let request = try executorRequest(request, options: model.options)
                    try await model.responder.respond(to: request) { event in
                        await channel.send(.response(action: action(for: event)))
                    }
                } catch OpenELMError.exceededContextWindowSize(let tokens, let context) {
                    throw LanguageModelError.contextSizeExceeded(
                        .init(
                            contextSize: context, tokenCount: tokens,
                            debugDescription: OpenELMError.exceededContextWindowSize(
                                tokens: tokens, context: context
                            ).description))
                } catch OpenELMError.invalidOption("schema", let message) {
                    throw LanguageModelError.unsupportedGenerationGuide(
                        .init(schemaName: nil, debugDescription: message))
                }
            }
        }
    }

    @available(iOS 27, macOS 27, visionOS 27, *)
    extension OpenELMLanguageModel.Executor {
        private func executorRequest(
            _ request: LanguageModelExecutorGenerationRequest, options: GenerationOptions
        ) throws -> ExecutorRequest {
            let transcript = try request.transcript.compactMap { entry in
                try message(of: entry).map { (entry: entry, message: $0) }
            }
            let requested = request.generationOptions
            var options = options
            if let mode = requested.samplingMode { options.samplingMode = try samplingMode(mode) }
            if let temperature = requested.temperature { options.temperature = temperature }
            if let tokens = requested.maximumResponseTokens {
                options.maximumResponseTokens = tokens
            }
            var result: ExecutorRequest
            do {
                result = try ExecutorRequest(
                    transcript: transcript.map(\.message), options: options)
            } catch {
                let entries = error.index.map { [transcript[$0].entry] } ?? []
                throw unsupported(entries, error.message)
            }
            if let schema = request.schema {
                result.constrain(
                    toJSONSchema: try String(decoding: JSONEncoder().encode(schema), as: UTF8.self),
                    inPrompt: request.contextOptions.includeSchemaInPrompt == true)
            }
            return result
        }

        /// The message of `entry`; `nil` for the reasoning of another model.
        private func message(of entry: Transcript.Entry) throws -> LanguageModelSession.Message? {
            let (role, segments): (LanguageModelSession.Message.Role, [Transcript.Segment])
            switch entry {
            case .instructions(let instructions):
                (role, segments) = (.instructions, instructions.segments)
            case .prompt(let prompt): (role, segments) = (.prompt, prompt.segments)
            case .response(let response): (role, segments) = (.response, response.segments)
            case .reasoning: return nil
            default:
                throw unsupported([entry], "expected instructions, prompts and responses")
            }
            let texts = try segments.map { segment in
                switch segment {
                case .text(let text): return text.content
                case .structure(let structure): return structure.content.jsonString
                default: throw unsupported([entry], "expected segments of text")
                }
            }
            return LanguageModelSession.Message(role: role, text: texts.joined(separator: "\n"))
        }

        private func samplingMode(
            _ mode: FoundationModels.GenerationOptions.SamplingMode
        ) throws -> GenerationOptions.SamplingMode {
            switch mode.kind {
            case .greedy: return .greedy
            case .randomTopK(let top, let seed): return .random(top: top, seed: seed)
            case .randomProbabilityThreshold(let threshold, let seed):
                return .random(probabilityThreshold: threshold, seed: seed)
            @unknown default:
                throw OpenELMError.invalidOption(
                    name: "samplingMode",
                    message: "samplingMode: expected greedy or random, found \(mode)")
            }
        }

        private func action(
            for event: ExecutorEvent
        ) -> LanguageModelExecutorGenerationChannel.Response.Action {
            switch event {
            case .text(let text, let tokens): .appendText(text, tokenCount: tokens)
            case .usage(let prompt, let cached, let generated):
                .updateUsage(
                    input: .init(totalTokenCount: prompt, cachedTokenCount: cached),
                    output: .init(totalTokenCount: generated, reasoningTokenCount: 0))
            }
        }

        private func unsupported(
            _ capability: LanguageModelCapabilities.Capability, _ message: String
        ) -> LanguageModelError {
            .unsupportedCapability(.init(capability: capability, debugDescription: message))
        }

        private func unsupported(
            _ entries: [Transcript.Entry], _ message: String
        ) -> LanguageModelError {
            .unsupportedTranscriptContent(
                .init(unsupportedContent: entries, debugDescription: message))
        }
    }

    @available(iOS 26, macOS 26, visionOS 26, *)
    extension LanguageModelSession {
        /// Returns the answer to `prompt` as a value of a type of FoundationModels' `@Generable`.
        public func respond<Content: Generable & Sendable>(
            to prompt: String, generating type: Content.Type,
            options: GenerationOptions = GenerationOptions()
        ) async throws -> GuidedResponse<Content> {
            let schema = try JSONEncoder().encode(type.generationSchema)
            let response = try await respond(
                to: prompt, schema: GenerationSchema(json: String(decoding: schema, as: UTF8.self)),
                options: options)
            do {
                return GuidedResponse(
                    content: try type.init(GeneratedContent(json: response.content)),
                    rawContent: response.content, finishReason: response.finishReason,
                    stats: response.stats)
            } catch {
                throw OpenELMError.undecodable(
                    text: response.content, message: String(describing: error))
            }
        }
    }
#endif
