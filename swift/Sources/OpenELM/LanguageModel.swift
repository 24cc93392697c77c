import Foundation
internal import OpenELMBindings

/// A loaded OpenELM. It is unloaded when its last holder lets go of it.
public final class LanguageModel: Sendable {
    let engine: Engine

    /// How a model is loaded.
    public struct Configuration: Sendable, Equatable {
        /// `float32`, `float16` or `bfloat16`; `nil`: the stored type on a GPU, `float32` on a CPU.
        public var dtype: String?
        /// The tokenizer's file or folder; `nil`: the model's.
        public var tokenizer: URL?
        /// Keeps quantised matrices packed; `nil`: on a GPU, or where memory asks for it.
        public var keepsQuantized: Bool?

        /// A configuration.
        public init(dtype: String? = nil, tokenizer: URL? = nil, keepsQuantized: Bool? = nil) {
            self.dtype = dtype
            self.tokenizer = tokenizer
            self.keepsQuantized = keepsQuantized
        }

        var bound: LoadOptions {
            LoadOptions(dtype: dtype, tokenizer: tokenizer?.path, keepQuantized: keepsQuantized)
        }
    }

    /// Loads the model in `folder`; `progress` is told the share that has been read, from 0 to 1.
    public init(
        folder: URL, configuration: Configuration = Configuration(),
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws {
        try Memory.prepare()
        try Task.checkCancellation()
        let run = try translated { try loadModel(path: folder.path, options: configuration.bound) }
        let running = Running(run)
        while let bytes = try await running.next() {
            progress(bytes.total == 0 ? 1 : Double(bytes.read) / Double(bytes.total))
        }
        engine = try translated { try run.engine() }
        progress(1)
    }

    /// Continues `prompt`, as base models do.
    public func streamCompletion(
        of prompt: String, options: GenerationOptions = GenerationOptions()
    ) -> TextStream {
        let engine = self.engine
        return TextStream(
            events: GenerationEvents {
                try engine.generate(prompt: prompt, options: options.bound())
            })
    }

    /// The continuation of `prompt`, whole.
    public func complete(
        _ prompt: String, options: GenerationOptions = GenerationOptions()
    ) async throws -> String {
        try await streamCompletion(of: prompt, options: options).collect().content
    }

    /// The ids of `text`, without the tokens that begin and end a text.
    public func encode(_ text: String) throws -> [UInt32] {
        try translated { try engine.encode(text: text, prompt: false) }
    }

    /// The text of `tokens`.
    public func decode(_ tokens: [UInt32]) throws -> String {
        try translated { try engine.decode(ids: tokens) }
    }

    /// Parameters of the model.
    public var parameterCount: Int {
        get throws { Int(try translated { try engine.info() }.parameters) }
    }

    /// The most tokens of prompt and answer together.
    public var contextSize: Int {
        get throws { Int(try translated { try engine.info() }.context) }
    }

    /// Unloads the model now; what runs with it ends with ``OpenELMError/unloaded``.
    public func unload() async throws {
        let engine = self.engine
        try await translated { try await engine.unload() }
    }

    /// The names of the adapters it has, in the order they came.
    public var adapters: [String] {
        get async throws {
            let engine = self.engine
            return try await translated { try await engine.adapters() }
        }
    }

    /// Takes in the adapter in `folder` under `name`, and makes it the active one, alone.
    public func addAdapter(_ name: String, folder: URL) async throws {
        let engine = self.engine
        try await translated { try await engine.addAdapter(name: name, folder: folder.path) }
    }

    /// Makes exactly these adapters active, added up; none: the model as it was loaded.
    public func useAdapters(_ adapters: [Adapter]) async throws {
        let engine = self.engine
        let active = adapters.map { AdapterStrength(name: $0.name, strength: $0.strength) }
        try await translated { try await engine.setAdapters(active: active) }
    }

    /// Takes the adapter `name` off and forgets it.
    public func removeAdapter(_ name: String) async throws {
        let engine = self.engine
        try await translated { try await engine.removeAdapter(name: name) }
    }
}

/// An adapter of a model, and how strong it is: 1 as it was trained.
public struct Adapter: Sendable, Equatable {
    /// Its name, as it was added.
    public var name: String
    /// What its part is multiplied by.
    public var strength: Float

    /// An adapter.
    public init(_ name: String, strength: Float = 1) {
        self.name = name
        self.strength = strength
    }
}
