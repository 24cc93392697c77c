import Dispatch
import Foundation

/// The SHA-256 of the file at `url`, as hexadecimal digits in lower case.
func fileDigest(_ url: URL) async throws -> String {
    // Not on a thread of the cooperative pool: large files take seconds.
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .utility).async {
            continuation.resume(with: Result { try digest(url.path) })
        }
    }
}

// At the merge: `try translated { try OpenELMBindings.sha256(path: path) }`.
private func digest(_ path: String) throws -> String {
    #if os(Linux)
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["sha256sum", "--", path]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(String(decoding: text, as: UTF8.self).prefix(64))
    #else
        throw OpenELMError.unexpected(message: "no SHA-256")
    #endif
}
