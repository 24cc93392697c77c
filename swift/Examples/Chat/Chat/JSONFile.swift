import Foundation

/// A value in a JSON file.
struct JSONFile<Value: Codable> {
    let url: URL

    /// A Boolean value that is true if the file exists.
    var exists: Bool { FileManager.default.fileExists(atPath: url.path) }

    /// Reads the value.
    func read() throws -> Value {
        try JSONDecoder().decode(Value.self, from: Data(contentsOf: url))
    }

    /// Writes the value beside the file and renames it, so that a crash leaves the old file.
    func write(_ value: Value) throws {
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(value).write(to: url, options: .atomic)
    }
}
