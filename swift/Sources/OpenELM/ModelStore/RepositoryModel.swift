extension LanguageModel {
    /// Loads the model of a repository of the Hub, `owner/name`, which is downloaded if `store` does
    /// not have it. Calls `progress` during the download. Apple's repositories have no tokenizer:
    /// `tokenizer` names it.
    public convenience init(
        repository: String, revision: String = "main",
        tokenizer: ModelStore.Tokenizer = .included, store: ModelStore = .shared,
        options: LoadOptions = LoadOptions(),
        progress: @escaping @Sendable (ModelStore.Progress) -> Void = { _ in }
    ) async throws {
        let source = ModelStore.Source.repository(
            repository, revision: revision, tokenizer: tokenizer)
        let folder = try await store.download(source, progress: progress)
        try await self.init(folder: folder, options: options)
    }
}
