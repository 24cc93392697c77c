import Dispatch
import Foundation
internal import OpenELMBindings

/// The SHA-256 of the file at `url`, as hexadecimal digits in lower case.
func fileDigest(_ url: URL) async throws -> String {
    // Not on a thread of the cooperative pool: large files take seconds.
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: .utility).async {
            continuation.resume(with: Result { try translated { try sha256(path: url.path) } })
        }
    }
}
