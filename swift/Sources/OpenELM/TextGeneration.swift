internal import OpenELMBindings

/// A smaller model with the same tokenizer that drafts tokens for another one (speculative
/// decoding). It changes the time, not the text.
public struct DraftModel: Sendable {
    /// The model.
    public let model: LanguageModel
    /// The maximum number of drafts that the other model verifies at once.
    public let numDraftTokens: Int

    /// Creates a draft model.
    public init(_ model: LanguageModel, numDraftTokens: Int = 3) {
        self.model = model
        self.numDraftTokens = numDraftTokens
    }
}

extension LanguageModel {
    /// Continues `prompt` and streams the text. Intended for base models.
    public func streamGenerate(
        _ prompt: String, options: GenerationOptions = GenerationOptions(),
        draft: DraftModel? = nil
    ) -> TextStream {
        let model = self.model
        return TextStream(
            events: GenerationEvents {
                try model.generate(
                    prompt: prompt, options: options.ffiOptions(),
                    with: requestOptions(options, draft))
            })
    }

    /// Continues `prompt` and returns the complete text. Intended for base models.
    public func generate(
        _ prompt: String, options: GenerationOptions = GenerationOptions(),
        draft: DraftModel? = nil
    ) async throws -> String {
        try await streamGenerate(prompt, options: options, draft: draft).collect().content
    }

    /// Continues `prompts`, up to `concurrency` at a time, which takes less time than one after the
    /// other, and returns the texts in order. A seed of the options is the same for all prompts.
    public func generate(
        _ prompts: [String], options: GenerationOptions = GenerationOptions(),
        concurrency: Int = 32
    ) async throws -> [LanguageModelSession.Response] {
        typealias Numbered = (index: Int, response: LanguageModelSession.Response)
        return try await withThrowingTaskGroup(of: Numbered.self) { group in
            var found: [Numbered] = []
            for (index, prompt) in prompts.enumerated() {
                if index >= max(concurrency, 1), let ended = try await group.next() {
                    found.append(ended)
                }
                let stream = streamGenerate(prompt, options: options)
                group.addTask { (index, try await stream.collect()) }
            }
            for try await ended in group { found.append(ended) }
            return found.sorted { $0.index < $1.index }.map(\.response)
        }
    }
}

/// The options of a request beside those of the generation.
func requestOptions(
    _ options: GenerationOptions, _ draft: DraftModel?
) throws -> OpenELMBindings.RequestOptions {
    OpenELMBindings.RequestOptions(
        adapters: nil,
        draft: try draft.map {
            Draft(
                model: $0.model.model,
                numDraftTokens: try count("numDraftTokens", $0.numDraftTokens))
        }, contextOverflow: options.contextOverflow.ffi)
}
