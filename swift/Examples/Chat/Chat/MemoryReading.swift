import Foundation
import OpenELM

/// A reading for the memory gauge.
struct MemoryReading: Equatable {
    /// Bytes allocated by MLX.
    let used: Int
    /// Bytes that the app can still allocate, if the system reports it.
    let free: Int?

    static func now() throws -> Self {
        let now = try Memory.statistics
        return Self(used: now.active + now.cache, free: try Memory.available)
    }

    /// Used fraction of the total, from 0 to 1.
    var share: Double {
        guard let free, used + free > 0 else { return 0 }
        return Double(used) / Double(used + max(free, 0))
    }

    /// Text for display.
    var text: String {
        guard let free else { return bytes(used) }
        return localized("%@ used, %@ free", bytes(used), bytes(free))
    }
}

/// Formats a number of bytes.
func bytes(_ count: Int) -> String {
    ByteCountFormatter.string(fromByteCount: Int64(count), countStyle: .memory)
}
