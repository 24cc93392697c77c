internal import OpenELMBindings

/// The kind of the key-value cache, with the names of mlx-swift-lm.
public struct KVCacheOptions: Sendable, Hashable, Codable {
    /// The number of positions in a rotating cache: the first ``keep`` and the last ones. The text
    /// can then be longer than the model's context. `nil` keeps all.
    public var maxKVSize: Int?
    /// The number of first positions that a rotating cache keeps.
    public var keep: Int
    /// Bits per number of quantised keys and values: 2, 4 or 8. `nil` keeps the model's dtype.
    public var kvBits: Int?
    /// Numbers that share a scale in a quantised cache: 32, 64 or 128, a divisor of the model's head
    /// dimension.
    public var kvGroupSize: Int
    /// The number of positions from which a cache is quantised.
    public var quantizedKVStart: Int

    /// Creates options; by default, keys and values of all positions in the model's dtype.
    public init(
        maxKVSize: Int? = nil, keep: Int = 4, kvBits: Int? = nil, kvGroupSize: Int = 64,
        quantizedKVStart: Int = 5000
    ) {
        self.maxKVSize = maxKVSize
        self.keep = keep
        self.kvBits = kvBits
        self.kvGroupSize = kvGroupSize
        self.quantizedKVStart = quantizedKVStart
    }

    func ffiOptions() throws -> OpenELMBindings.KvCacheOptions {
        OpenELMBindings.KvCacheOptions(
            maxKvSize: try maxKVSize.map { try count("maxKVSize", $0) },
            keep: try count("keep", keep), kvBits: try kvBits.map { try count("kvBits", $0) },
            kvGroupSize: try count("kvGroupSize", kvGroupSize),
            quantizedKvStart: try count("quantizedKVStart", quantizedKVStart))
    }
}

/// The treatment of a conversation that does not fit the model's context.
public enum ContextOverflow: String, Sendable, Codable, CaseIterable {
    /// The answer fails with ``OpenELMError/exceededContextWindowSize(tokens:context:)``.
    case error
    /// The prompt leaves out the oldest prompts with their answers, and keeps the instructions. The
    /// transcript stays complete.
    case dropOldestTurns

    var ffi: OpenELMBindings.ContextOverflow {
        switch self {
        case .error: .error
        case .dropOldestTurns: .dropOldestTurns
        }
    }
}
