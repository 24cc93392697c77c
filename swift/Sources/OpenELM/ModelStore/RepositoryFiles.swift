/// The choice of a repository's files: those that `openelm pull` chooses.
enum RepositoryFiles {
    private static let adapterConfig = "adapter_config.json"
    private static let adapterWeights = [
        "adapters.safetensors", "adapter_model.safetensors", "adapter_model.bin",
    ]
    private static let tokenizerFiles = [
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "chat_template.json",
    ]
    /// A repository with a copy of LLaMA's tokenizer that needs no token.
    private static let example = "mlx-community/OpenELM-270M-Instruct"

    /// The files of a model, with safetensors or else PyTorch's weights, or else of an adapter.
    static func chosen(
        from all: [DownloadPlan.File], title: String
    ) throws -> [DownloadPlan.File] {
        func has(_ name: String) -> Bool { all.contains { $0.name == name } }
        let safetensors = all.filter { isSafetensors($0.name) }
        let weights = safetensors.isEmpty ? all.filter { isTorch($0.name) } : safetensors
        if has("config.json") && !weights.isEmpty {
            return all.filter { isDescription($0.name) } + weights
        }
        if has(adapterConfig), let weights = adapterWeights.first(where: has) {
            return all.filter { $0.name == adapterConfig || $0.name == weights }
        }
        let shown = all.prefix(8).map(\.name).joined(separator: ", ")
        throw OpenELMError.notFound(
            source: title,
            message: "\(title): expected a model (config.json and model*.safetensors or "
                + "pytorch_model*.bin) or an adapter, found \(shown.isEmpty ? "neither" : shown)")
    }

    /// The tokenizer's files.
    static func tokenizer(
        from all: [DownloadPlan.File], title: String
    ) throws -> [DownloadPlan.File] {
        let found = all.filter { tokenizerFiles.contains($0.name) }
        guard hasTokenizer(found) else {
            throw OpenELMError.notFound(
                source: title,
                message: "\(title): expected tokenizer.json or tokenizer.model, "
                    + "found neither; \(advice)")
        }
        return found
    }

    /// Refuses a model without a tokenizer before its weights are downloaded.
    static func checkTokenizer(of files: [DownloadPlan.File], title: String) throws {
        guard files.contains(where: { $0.name == "config.json" }) else { return }
        guard !hasTokenizer(files) else { return }
        throw OpenELMError.notFound(
            source: title, message: "\(title): the repository has no tokenizer; \(advice)")
    }

    /// The files of a model with the tokenizer of another source.
    static func replacingTokenizer(
        of model: [DownloadPlan.File], by tokenizer: [DownloadPlan.File]
    ) -> [DownloadPlan.File] {
        model.filter { !tokenizerFiles.contains($0.name) } + tokenizer
    }

    /// False for names that leave a folder, also of files that are not downloaded.
    static func isSafe(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return parts.allSatisfy { part in
            let visible = part.drop { $0 == "." }
            return !visible.isEmpty && FileName.isSafe(String(visible))
        }
    }

    /// True for the files that a model, an adapter or a tokenizer may have: in no folder, and not
    /// hidden.
    static func isChoice(_ name: String) -> Bool {
        !name.contains("/") && !name.hasPrefix(".")
            && (isDescription(name) || isSafetensors(name) || isTorch(name)
                || adapterWeights.contains(name))
    }

    private static var advice: String {
        "the source's `tokenizer` names another repository, such as \(example), files, or "
            + "`.separate`"
    }

    private static func hasTokenizer(_ files: [DownloadPlan.File]) -> Bool {
        files.contains { $0.name == "tokenizer.json" || $0.name == "tokenizer.model" }
    }

    private static func isDescription(_ name: String) -> Bool {
        name == "tokenizer.model"
            || [".json", ".jsonl", ".jinja", ".txt"].contains { name.hasSuffix($0) }
    }

    private static func isSafetensors(_ name: String) -> Bool {
        (name.hasPrefix("model") || name.hasPrefix("weights")) && name.hasSuffix(".safetensors")
    }

    private static func isTorch(_ name: String) -> Bool {
        name.hasPrefix("pytorch_model") && name.hasSuffix(".bin")
    }
}
