import Foundation
internal import OpenELMBindings

/// Options of loading a model.
public struct LoadOptions: Sendable, Equatable {
    /// `float32`, `float16` or `bfloat16`; `nil`: the stored dtype on a GPU, `float32` on a CPU.
    public var dtype: String?
    /// The tokenizer's file or folder; `nil`: the model's.
    public var tokenizer: URL?
    /// Keeps quantised matrices quantised; `nil`: on a GPU, or if memory is short.
    public var keepQuantized: Bool?

    /// Options.
    public init(dtype: String? = nil, tokenizer: URL? = nil, keepQuantized: Bool? = nil) {
        self.dtype = dtype
        self.tokenizer = tokenizer
        self.keepQuantized = keepQuantized
    }

    var ffiOptions: OpenELMBindings.LoadOptions {
        OpenELMBindings.LoadOptions(
            dtype: dtype, tokenizer: tokenizer?.path, keepQuantized: keepQuantized)
    }
}

/// A loaded OpenELM model. It is unloaded when its last reference is released.
public final class LanguageModel: Sendable {
    let model: OpenELMBindings.LanguageModel

    /// Loads the model in `folder`; `progress` gets the share that has been read, from 0 to 1.
    public init(
        folder: URL, options: LoadOptions = LoadOptions(),
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws {
        try Memory.prepare()
        try Task.checkCancellation()
        let run = try translated { try loadModel(path: folder.path, options: options.ffiOptions) }
        let running = Running(run)
        while let bytes = try await running.next() {
            progress(bytes.total == 0 ? 1 : Double(bytes.read) / Double(bytes.total))
        }
        model = try translated { try run.model() }
        progress(1)
    }

    /// Continues `prompt`, piece by piece; for base models.
    public func streamGenerate(
        _ prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let model = self.model
        return TextStream(
            events: GenerationEvents {
                try model.generate(prompt: prompt, options: options.ffiOptions())
            })
    }

    /// The whole continuation of `prompt`; for base models.
    public func generate(
        _ prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> String {
        try await streamGenerate(prompt, options: options).collect().content
    }

    /// The token ids of `text`, without BOS and EOS.
    public func encode(_ text: String) throws -> [UInt32] {
        try translated { try model.encode(text: text, prompt: false) }
    }

    /// The text of `tokens`.
    public func decode(_ tokens: [UInt32]) throws -> String {
        try translated { try model.decode(ids: tokens) }
    }

    /// Number of parameters.
    public var parameterCount: Int {
        get throws { Int(try translated { try model.info() }.parameterCount) }
    }

    /// Most tokens of prompt and answer together.
    public var contextSize: Int {
        get throws { Int(try translated { try model.info() }.maxContextLength) }
    }

    /// Unloads the model now; runs that use it end with ``OpenELMError/unloaded``.
    public func unload() async throws {
        let model = self.model
        try await translated { try await model.unload() }
    }

    /// The names of all adapters, in the order they were added.
    public var adapters: [String] {
        get async throws {
            let model = self.model
            return try await translated { try await model.adapters() }
        }
    }

    /// Adds the adapter in `folder` under `name`, and makes it the only active one.
    public func addAdapter(_ name: String, folder: URL) async throws {
        let model = self.model
        try await translated { try await model.addAdapter(name: name, folder: folder.path) }
    }

    /// Makes exactly these adapters active; their outputs are added. None: the model as loaded.
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

/// An adapter of a model and its strength: 1 is the strength of training.
public struct Adapter: Sendable, Equatable {
    /// The name it was added under.
    public var name: String
    /// Factor of its output.
    public var strength: Float

    /// An adapter.
    public init(_ name: String, strength: Float = 1) {
        self.name = name
        self.strength = strength
    }
}
