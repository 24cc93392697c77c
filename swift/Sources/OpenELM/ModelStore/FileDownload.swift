import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// A download of one file of a plan.
struct FileDownload: Sendable {
    let file: DownloadPlan.File
    /// The model and the file, in errors.
    let title: String
    let places: ModelPlaces
    let client: HubClient
    /// Gets the number of bytes on this device when that changes.
    let report: @Sendable (Int) -> Void

    /// Downloads the missing bytes, verifies all, and gives the file its name.
    func run() async throws {
        let target = places.file(file.name)
        if byteCount(of: target) == file.size { return report(file.size) }
        let part = try PartialFile(
            url: places.part(file.name), size: file.size, title: title, report: report)
        let continues = part.length > 0
        try await fetch(part)
        do { try await verify(part) } catch OpenELMError.invalidDownload where continues {
            // The bytes of the earlier download may be wrong.
            try await fetch(part)
            try await verify(part)
        }
        let manager = FileManager.default
        try io(target) {
            try manager.createDirectory(
                at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
            if (try? manager.attributesOfItem(atPath: target.path)) != nil {
                try manager.removeItem(at: target)
            }
            try manager.moveItem(at: part.url, to: target)
        }
        part.removeDetails()
    }

    /// Requests the missing bytes until all are there.
    private func fetch(_ part: PartialFile) async throws {
        if file.size == 0 {
            try part.restart()
            try io(part.url) { try Data().write(to: part.url) }
        }
        var attempt = 0
        var longest = part.length
        while !part.isComplete {
            try Task.checkCancellation()
            let request = client.request(file.url, headers: part.headers)
            var failure: DownloadFailure?
            do {
                let answer = try await client.transport.download(request, to: part)
                if answer.status >= 300 {
                    failure = DownloadFailure(answer, title, request, hub: client)
                } else if !part.isComplete {
                    let found = part.length
                    try part.restart()
                    failure = .content(
                        title, "expected \(file.size) bytes, found \(found); removed")
                }
            } catch {
                try part.close()
                failure = try DownloadFailure(error, title, request)
            }
            if part.length > longest {
                longest = part.length
                attempt = 0
            }
            if let failure {
                attempt += 1
                if failure.retry == .fromStart { try part.restart() }
                try await client.wait(after: failure, attempt: attempt)
            }
        }
        try part.close()
    }

    /// Compares the SHA-256; removes the bytes if it is another one.
    private func verify(_ part: PartialFile) async throws {
        guard let expected = file.sha256 else { return }
        let found = try await fileDigest(part.url)
        try Task.checkCancellation()
        guard found != expected else { return }
        try part.restart()
        throw OpenELMError.invalidDownload(
            source: title,
            message: "\(title): expected the SHA-256 \(expected), found \(found); removed")
    }
}
