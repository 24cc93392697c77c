import Foundation

/// The files of a source, as they are downloaded.
struct DownloadPlan: Codable, Equatable, Sendable {
    /// Limits of a source: sums of sizes stay far below `Int.max`.
    static let maximumSize = 1 << 50
    static let maximumCount = 1000

    struct File: Codable, Equatable, Sendable {
        let name: String
        let url: URL
        let size: Int
        /// In lower case; `nil` for small files of a repository, which the Hub names by git's hash.
        let sha256: String?
        /// Git's hash of the contents.
        let blob: String?

        /// True if both have the same contents: bytes of one continue the other.
        func hasContents(of other: File) -> Bool {
            name == other.name && size == other.size && sha256 == other.sha256
                && blob == other.blob
        }
    }

    let source: ModelStore.Source
    let files: [File]

    var totalBytes: Int { files.reduce(0) { $0 + $1.size } }
}

extension DownloadPlan.File {
    init(_ file: ModelStore.RemoteFile) {
        self.init(
            name: file.name, url: file.url, size: file.size, sha256: file.sha256.lowercased(),
            blob: nil)
    }
}

/// The places of a model in a store:
///
///     models--owner--name/             a complete model
///       .source.json                   its source
///     .incomplete/models--owner--name/
///       plan.json                      a ``DownloadPlan``
///       parts/NAME.part                the beginning of a file
///       parts/NAME.part.etag           its version on the server
///       files/NAME                     a complete file, not yet in the model
///     .removed/                        models that are being deleted
struct ModelPlaces: Sendable {
    static let sourceName = ".source.json"

    let store: URL
    let name: String

    var model: URL { store.appending(path: name) }
    var incomplete: URL { store.appending(path: ".incomplete").appending(path: name) }
    var files: URL { incomplete.appending(path: "files") }
    var parts: URL { incomplete.appending(path: "parts") }
    var planFile: URL { incomplete.appending(path: "plan.json") }

    func file(_ name: String) -> URL { files.appending(path: name) }
    func part(_ name: String) -> URL { parts.appending(path: FileName.escaped(name) + ".part") }

    /// The source of the complete model.
    var source: ModelStore.Source? {
        decoded(ModelStore.Source.self, at: model.appending(path: Self.sourceName))
    }

    /// The plan of the incomplete download.
    var plan: DownloadPlan? { decoded(DownloadPlan.self, at: planFile) }

    /// The bytes of a file that are on this device.
    func completedBytes(of file: DownloadPlan.File) -> Int {
        if byteCount(of: self.file(file.name)) == file.size { return file.size }
        return min(byteCount(of: part(file.name)) ?? 0, file.size)
    }

    /// Removes the model or its incomplete download: renamed first, so that no place has a part of
    /// a model.
    func remove(_ place: URL) throws {
        let manager = FileManager.default
        guard (try? manager.attributesOfItem(atPath: place.path)) != nil else { return }
        let removed = store.appending(path: ".removed")
        try io(place) {
            try manager.createDirectory(at: removed, withIntermediateDirectories: true)
            try manager.moveItem(at: place, to: removed.appending(path: UUID().uuidString))
        }
        try io(removed) { try manager.removeItem(at: removed) }
    }

    private func decoded<T: Decodable>(_ type: T.Type, at url: URL) -> T? {
        (try? Data(contentsOf: url)).flatMap { try? JSONDecoder().decode(type, from: $0) }
    }
}

/// The length of a file; `nil` for anything else.
func byteCount(of url: URL) -> Int? {
    guard let attributes = try? FileManager.default.attributesOfItem(atPath: url.path),
        attributes[.type] as? FileAttributeType == .typeRegular
    else { return nil }
    return (attributes[.size] as? NSNumber)?.intValue
}

/// Runs `body` and names `url` in errors of files.
func io<T>(_ url: URL, _ body: () throws -> T) throws -> T {
    do { return try body() } catch let error as OpenELMError { throw error } catch {
        let reason =
            (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? error as NSError
        throw OpenELMError.io(
            path: url.path, message: "\(url.path): \(reason.localizedDescription)")
    }
}
