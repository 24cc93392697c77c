import Foundation

extension LanguageModelSession {
    /// An answer that was decoded from its text.
    public struct GuidedResponse<Content: Sendable>: Sendable {
        /// The decoded value.
        public let content: Content
        /// The text, which is JSON of the schema.
        public let rawContent: String
        /// The reason why the answer ended.
        public let finishReason: FinishReason
        /// Counts and times.
        public let stats: GenerationStats
    }

    /// Returns the answer to `prompt`, which is JSON of `schema`. An answer that reaches its limit
    /// is closed, unless the options say otherwise.
    public func respond(
        to prompt: String, schema: GenerationSchema,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> Response {
        try await respond(to: prompt, options: options.guided(by: schema))
    }

    /// Returns the answer to `prompt` as a value of `type`.
    public func respond<Content: Guided>(
        to prompt: String, generating type: Content.Type,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> GuidedResponse<Content> {
        try await respond(
            to: prompt, generating: type, schema: type.generationSchema, options: options)
    }

    /// Returns the answer to `prompt`, which is JSON of `schema`, as a value of `type`.
    public func respond<Content: Decodable & Sendable>(
        to prompt: String, generating type: Content.Type, schema: GenerationSchema,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> GuidedResponse<Content> {
        let response = try await respond(to: prompt, schema: schema, options: options)
        return GuidedResponse(
            content: try decoded(response.content, as: type), rawContent: response.content,
            finishReason: response.finishReason, stats: response.stats)
    }
}

extension LanguageModel {
    /// Continues `prompt` with JSON of `schema`, and decodes it. Intended for base models.
    public func generate<Content: Decodable & Sendable>(
        _ prompt: String, generating type: Content.Type, schema: GenerationSchema,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> Content {
        let options = options.guided(by: schema)
        return try decoded(try await generate(prompt, options: options), as: type)
    }

    /// Continues `prompt` with a value of `type`. Intended for base models.
    public func generate<Content: Guided>(
        _ prompt: String, generating type: Content.Type,
        options: GenerationOptions = GenerationOptions()
    ) async throws -> Content {
        try await generate(
            prompt, generating: type, schema: type.generationSchema, options: options)
    }
}

extension GenerationOptions {
    /// These options with a text of JSON, which is complete unless the caller chose another end.
    func guided(by schema: GenerationSchema) -> GenerationOptions {
        var options = self
        options.guide = .schema(schema)
        if options.guideAtLimit == .stop { options.guideAtLimit = .close }
        return options
    }
}

private func decoded<Content: Decodable>(
    _ text: String, as type: Content.Type
) throws -> Content {
    do {
        return try JSONDecoder().decode(type, from: Data(text.utf8))
    } catch {
        throw OpenELMError.undecodable(text: text, message: String(describing: error))
    }
}
