import Foundation

/// A download of a source into a store. Files get their names when they are verified; the folder
/// gets its name when it has all files.
struct ModelDownload: Sendable {
    /// Files that are downloaded at the same time.
    private static let concurrentFiles = 8

    let source: ModelStore.Source
    let places: ModelPlaces
    let client: HubClient
    let report: DownloadReport
    /// The free space of the disk with a folder; `nil` if the system does not report it.
    let freeSpace: @Sendable (URL) -> Int?

    /// Downloads the model and returns its folder.
    func run() async throws -> URL {
        let reservation = try Reservation(places.incomplete)
        defer { reservation.end() }
        let plan = try await plan()
        try Task.checkCancellation()
        try checkSpace(for: plan)
        try prepare(plan)
        report.begin(plan, places)
        try await withThrowingTaskGroup(of: Void.self) { group in
            var running = 0
            for file in plan.files {
                if running >= Self.concurrentFiles { try await group.next() }
                running += 1
                group.addTask { try await download(file).run() }
            }
            while try await group.next() != nil {}
        }
        try finish(plan)
        return places.model
    }

    /// The plan of the source. Without an answer, the plan of the earlier download, whose addresses
    /// name the commit.
    private func plan() async throws -> DownloadPlan {
        do { return try await client.plan(for: source) } catch let error as OpenELMError {
            guard case .network = error, let plan = places.plan, plan.source == source else {
                throw error
            }
            return plan
        }
    }

    private func download(_ file: DownloadPlan.File) -> FileDownload {
        FileDownload(
            file: file, title: "\(source.title): \(file.name)", places: places, client: client
        ) { [report] length in
            report.set(file.name, length)
        }
    }

    /// Refuses a download that does not fit, before anything is written.
    private func checkSpace(for plan: DownloadPlan) throws {
        let needed = plan.files.reduce(0) { $0 + $1.size - places.completedBytes(of: $1) }
        guard let free = freeSpace(places.store), free < needed else { return }
        throw OpenELMError.insufficientSpace(
            path: places.store.path, needed: needed, available: free)
    }

    /// Makes the folders. Removes files that an earlier plan had with other contents.
    private func prepare(_ plan: DownloadPlan) throws {
        let manager = FileManager.default
        if let old = places.plan {
            for file in old.files where !plan.files.contains(where: { $0.hasContents(of: file) }) {
                try? manager.removeItem(at: places.file(file.name))
                try PartialFile(url: places.part(file.name), size: 0, title: "").restart()
            }
        } else {
            // Files without a plan are of no use.
            try places.remove(places.incomplete)
        }
        for folder in [places.files, places.parts] {
            try io(folder) {
                try manager.createDirectory(at: folder, withIntermediateDirectories: true)
            }
        }
        try excludeFromBackup(places.store)
        try io(places.planFile) {
            try JSONEncoder().encode(plan).write(to: places.planFile, options: .atomic)
        }
    }

    /// Moves the complete folder to its place, in place of another version.
    private func finish(_ plan: DownloadPlan) throws {
        let manager = FileManager.default
        let names = Set(plan.files.map(\.name))
        for name in (try? manager.subpathsOfDirectory(atPath: places.files.path)) ?? []
        where !names.contains(name) && byteCount(of: places.file(name)) != nil {
            try io(places.file(name)) { try manager.removeItem(at: places.file(name)) }
        }
        let sourceFile = places.file(ModelPlaces.sourceName)
        try io(sourceFile) {
            try JSONEncoder().encode(plan.source).write(to: sourceFile, options: .atomic)
        }
        try Task.checkCancellation()
        try places.remove(places.model)
        try io(places.model) { try manager.moveItem(at: places.files, to: places.model) }
        report.finish(plan.totalBytes)
        // The model is complete without this.
        try? places.remove(places.incomplete)
    }
}

/// Excludes a folder and its contents from backups: models can be downloaded again.
private func excludeFromBackup(_ folder: URL) throws {
    #if canImport(Darwin)
        var folder = folder
        var values = URLResourceValues()
        values.isExcludedFromBackup = true
        try io(folder) { try folder.setResourceValues(values) }
    #endif
}

/// The right to write into a folder of this process. Two stores may have the same directory.
private final class Reservation: Sendable {
    private static let folders = Folders()
    private let path: String

    init(_ folder: URL) throws {
        path = folder.standardizedFileURL.path
        guard Self.folders.insert(path) else {
            throw OpenELMError.destination(
                path: path, message: "\(path): another store downloads this model")
        }
    }

    func end() { Self.folders.remove(path) }

    private final class Folders: @unchecked Sendable {
        private let lock = NSLock()
        private var paths = Set<String>()

        func insert(_ path: String) -> Bool { lock.withLock { paths.insert(path).inserted } }
        func remove(_ path: String) { lock.withLock { _ = paths.remove(path) } }
    }
}
