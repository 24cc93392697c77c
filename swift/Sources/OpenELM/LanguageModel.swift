import Foundation
internal import OpenELMBindings

/// Options for loading a model.
public struct LoadOptions: Sendable, Equatable {
    /// `float32`, `float16` or `bfloat16`; `nil` is a dtype of 16 bits on a GPU and `float32` on a
    /// CPU.
    public var dtype: String?
    /// A tokenizer file or folder; `nil` uses the model folder.
    public var tokenizer: URL?
    /// Keeps quantised matrices packed; `nil` does so on a GPU, or if memory is short.
    public var keepQuantized: Bool?
    /// Loads the model to fine-tune it: on a GPU the default dtype is then `bfloat16` in place of
    /// `float16`, whose range is too small for gradients.
    public var training: Bool

    /// Creates options.
    public init(
        dtype: String? = nil, tokenizer: URL? = nil, keepQuantized: Bool? = nil,
        training: Bool = false
    ) {
        self.dtype = dtype
        self.tokenizer = tokenizer
        self.keepQuantized = keepQuantized
        self.training = training
    }

    func ffiOptions() throws -> OpenELMBindings.LoadOptions {
        OpenELMBindings.LoadOptions(
            dtype: dtype, tokenizer: try tokenizer.map { try filePath($0, "tokenizer") },
            keepQuantized: keepQuantized, training: training)
    }
}

/// A loaded OpenELM model. Releasing the last reference unloads it.
public final class LanguageModel: Sendable {
    let model: OpenELMBindings.LanguageModel

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
        progress(1)
    }

    /// Reads and generates a few tokens, so that MLX loads or compiles its GPU kernels now and not
    /// during the first prompt. See also ``LanguageModelSession/prewarm()``.
    public func warmUp() async throws {
        let model = self.model
        try await translated { try await model.warmUp() }
    }

    /// Continues `prompt` and streams the text. Intended for base models.
    public func streamGenerate(
        _ prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let model = self.model
        return TextStream(
            events: GenerationEvents {
                try model.generate(prompt: prompt, options: options.ffiOptions())
            })
    }

    /// Continues `prompt` and returns the complete text. Intended for base models.
    public func generate(
        _ prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> String {
        try await streamGenerate(prompt, options: options).collect().content
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

    /// The names of all adapters, in the order of their addition.
    public var adapters: [String] {
        get async throws {
            let model = self.model
            return try await translated { try await model.adapters() }
        }
    }

    /// Adds the adapter in `folder` as `name` and makes it the only active adapter.
    public func addAdapter(_ name: String, folder: URL) async throws {
        let model = self.model
        let path = try filePath(folder, "folder")
        try await translated { try await model.addAdapter(name: name, folder: path) }
    }

    /// Makes exactly these adapters active. Their outputs are summed; an empty array restores the
    /// base model.
    public func setAdapters(_ adapters: [Adapter]) async throws {
        let model = self.model
        let active = adapters.map { AdapterStrength(name: $0.name, strength: $0.strength) }
        try await translated { try await model.setAdapters(active: active) }
    }

    /// Removes the adapter `name`.
    public func removeAdapter(_ name: String) async throws {
        let model = self.model
        try await translated { try await model.removeAdapter(name: name) }
    }
}

/// An adapter of a model and its strength, where 1 is the strength used in training.
public struct Adapter: Sendable, Equatable {
    /// The adapter's name.
    public var name: String
    /// The factor of the adapter's output.
    public var strength: Float

    /// Creates an adapter reference.
    public init(_ name: String, strength: Float = 1) {
        self.name = name
        self.strength = strength
    }
}
