import Foundation
import OpenELM

/// The reading of the memory gauge.
struct MemoryReading: Equatable {
    /// Bytes that MLX holds.
    let used: Int
    /// Bytes that the app may still take, where the system says so.
    let free: Int?

    static func now() throws -> Self {
        let now = try Memory.statistics
        return Self(used: now.active + now.cache, free: try Memory.available)
    }

    /// The share of what there is that is used, from 0 to 1.
    var share: Double {
        guard let free, used + free > 0 else { return 0 }
        return Double(used) / Double(used + max(free, 0))
    }

    /// In words.
    var text: String {
        guard let free else { return bytes(used) }
        return "\(bytes(used)), \(bytes(free)) free"
    }
}

/// A number of bytes in words.
func bytes(_ count: Int) -> String {
    ByteCountFormatter.string(fromByteCount: Int64(count), countStyle: .memory)
}
