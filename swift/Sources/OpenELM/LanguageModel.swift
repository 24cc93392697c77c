import Foundation
internal import OpenELMBindings

/// Options for loading a model.
public struct LoadOptions: Sendable, Hashable, Codable {
    /// The number format of the computation; `nil` is a dtype of 16 bits on a GPU and `float32` on
    /// a CPU.
    public var dtype: DType?
    /// A tokenizer file or folder; `nil` uses the model folder.
    public var tokenizer: URL?
    /// Keeps quantised matrices packed; `nil` does so on a GPU, on Linux with AVX2 unless
    /// ``training``, or if memory is short.
    public var keepQuantized: Bool?
    /// Loads the model to fine-tune it: on a GPU the default dtype is then `bfloat16` in place of
    /// `float16`, whose range is too small for gradients.
    public var training: Bool

    /// Creates options.
    public init(
        dtype: DType? = nil, tokenizer: URL? = nil, keepQuantized: Bool? = nil,
        training: Bool = false
    ) {
        self.dtype = dtype
        self.tokenizer = tokenizer
        self.keepQuantized = keepQuantized
        self.training = training
    }

    func ffiOptions() throws -> OpenELMBindings.LoadOptions {
        OpenELMBindings.LoadOptions(
            dtype: dtype?.rawValue, tokenizer: try tokenizer.map { try filePath($0, "tokenizer") },
            keepQuantized: keepQuantized, training: training)
    }
}

/// A loaded OpenELM model. Releasing the last reference unloads it.
public final class LanguageModel: Sendable {
    let model: OpenELMBindings.LanguageModel
    /// The template that the model's files or its name state: that of OpenELM-Instruct, or
    /// ``ChatTemplate/plain`` for a base model.
    public let chatTemplate: ChatTemplate

    /// Loads the model in `folder`. Calls `progress` with the fraction loaded, from 0 to 1.
    public init(
        folder: URL, options: LoadOptions = LoadOptions(),
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws {
        try Memory.prepare()
        try Task.checkCancellation()
        let path = try filePath(folder, "folder")
        let options = try options.ffiOptions()
        let run = try translated { try loadModel(path: path, options: options) }
        let running = Running(run)
        while let bytes = try await running.next() {
            progress(bytes.total == 0 ? 1 : Double(bytes.read) / Double(bytes.total))
        }
        model = try translated { try run.model() }
        chatTemplate = ChatTemplate(try translated { try modelChatTemplate(folder: path) })
        progress(1)
    }

    /// Reads and generates a few tokens, so that MLX loads or compiles its GPU kernels now and not
    /// during the first prompt. See also ``LanguageModelSession/prewarm(promptPrefix:)``.
    public func warmUp() async throws {
        let model = self.model
        try await translated { try await model.warmUp() }
    }

    /// Returns the token ids of `text`, without BOS and EOS.
    public func encode(_ text: String) throws -> [UInt32] {
        try translated { try model.encode(text: text, prompt: false) }
    }

    /// Returns the text of `tokens`.
    public func decode(_ tokens: [UInt32]) throws -> String {
        try translated { try model.decode(ids: tokens) }
    }

    /// The number of parameters.
    public var parameterCount: Int {
        get throws { Int(try translated { try model.info() }.parameterCount) }
    }

    /// The context length: the maximum number of tokens in a prompt and its answer.
    public var contextSize: Int {
        get throws { Int(try translated { try model.info() }.maxContextLength) }
    }

    /// Doubts about the model that are not errors, a sentence each, such as a tokenizer whose size
    /// differs from the model's vocabulary.
    public var warnings: [String] {
        get throws { try translated { try model.info() }.warnings }
    }

    /// Unloads the model. Runs that use it end with ``OpenELMError/unloaded``.
    public func unload() async throws {
        let model = self.model
        try await translated { try await model.unload() }
    }
}
