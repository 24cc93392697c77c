import Foundation
internal import OpenELMBindings

/// An adapter of a model and its strength, where 1 is the strength used in training.
public struct Adapter: Sendable, Hashable, Codable {
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

extension LanguageModel {
    /// The names of all adapters, in the order of their addition.
    public var adapters: [String] {
        get async throws {
            let model = self.model
            return try await translated { try await model.adapters() }
        }
    }

    /// The active adapters.
    public var activeAdapters: [Adapter] {
        get async throws {
            let model = self.model
            let active = try await translated { try await model.activeAdapters() }
            return active.map { Adapter($0.name, strength: $0.strength) }
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
