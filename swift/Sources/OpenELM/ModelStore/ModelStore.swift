import Foundation

/// A folder of downloaded models. A model is complete or not there: files are verified, and the
/// model's folder gets its name when it has all files.
///
///     let source = ModelStore.Source.repository("mlx-community/OpenELM-270M-Instruct")
///     let folder = try await ModelStore.shared.download(source) { print($0.fractionCompleted) }
///     let model = try await LanguageModel(folder: folder)
///
/// A download that was cancelled or interrupted continues where it stopped, also after another
/// launch of the app. On Apple systems it also continues while the app is suspended. Only one
/// process may use a directory at a time.
public actor ModelStore {
    /// The store with the default directory, without a token.
    public static let shared = ModelStore()
    /// The identifier of the background session, for an app's `backgroundTask(.urlSession(_:))`.
    public static let backgroundIdentifier = "org.openelm.models"
    /// The default directory: `OpenELM/Models` in Application Support.
    public static var defaultDirectory: URL {
        let manager = FileManager.default
        let folders = manager.urls(for: .applicationSupportDirectory, in: .userDomainMask)
        let folder = folders.first ?? URL(filePath: NSHomeDirectory())
        return folder.appending(path: "OpenELM/Models")
    }

    /// The folder of the models. It is excluded from backups.
    public nonisolated let directory: URL

    private let client: HubClient
    private let freeSpace: @Sendable (URL) -> Int?
    private var runs: [String: DownloadRun] = [:]

    /// Creates a store. `directory` is ``defaultDirectory`` by default, `endpoint` the address of
    /// the Hub or of a mirror, and `token` an access token, which is sent to `endpoint` only.
    /// `inBackground` uses a background session on Apple systems.
    public init(
        directory: URL? = nil, endpoint: URL? = nil, token: String? = nil,
        inBackground: Bool = true
    ) {
        self.init(
            directory: directory, endpoint: endpoint, token: token,
            transport: inBackground ? backgroundTransport() : DataTransport())
    }

    init(
        directory: URL?, endpoint: URL?, token: String?, transport: any Transport,
        timeout: Double = 60,
        wait: @escaping @Sendable (Duration) async throws -> Void = {
            try await Task.sleep(for: $0)
        },
        freeSpace: @escaping @Sendable (URL) -> Int? = systemFreeSpace
    ) {
        self.directory = directory ?? Self.defaultDirectory
        self.freeSpace = freeSpace
        client = HubClient(
            endpoint: endpoint ?? URL(string: "https://huggingface.co") ?? URL(filePath: "/"),
            token: token, transport: transport, wait: wait, timeout: timeout)
    }

    /// Downloads `source`, unless the store has it, and returns the model's folder. Calls
    /// `progress`, on any thread, with numbers that never decrease and end with all bytes. Calls for
    /// the same source share one download, which stops when all their tasks are cancelled.
    @discardableResult
    public func download(
        _ source: Source, progress: @escaping @Sendable (Progress) -> Void = { _ in }
    ) async throws -> URL {
        let places = try places(of: source)
        try checkClient()
        while true {
            try Task.checkCancellation()
            guard let run = runs[places.name] else {
                if let folder = folder(of: source, places) {
                    let bytes = size(of: folder)
                    progress(Progress(completedBytes: bytes, totalBytes: bytes))
                    return folder
                }
                begin(source, places)
                continue
            }
            guard run.source == source else {
                throw OpenELMError.destination(
                    path: places.model.path,
                    message: "\(source.title): another list of files is being downloaded")
            }
            guard let caller = run.enter(progress) else {
                await run.end()
                continue
            }
            return try await run.wait(caller)
        }
    }

    /// Returns the state of `source` on this device. Requests nothing.
    public func availability(of source: Source) -> Availability {
        guard let places = try? places(of: source) else { return .notDownloaded }
        if let run = runs[places.name], run.source == source {
            return .downloading(run.report.current)
        }
        if let folder = folder(of: source, places) { return .available(folder) }
        guard let plan = places.plan, plan.source == source else { return .notDownloaded }
        let completed = plan.files.reduce(0) { $0 + places.completedBytes(of: $1) }
        return .incomplete(Progress(completedBytes: completed, totalBytes: plan.totalBytes))
    }

    /// Cancels a download of `source` and deletes the model, or its incomplete download.
    public func delete(_ source: Source) async throws {
        let places = try places(of: source)
        while let run = runs[places.name], run.source == source {
            run.cancel()
            await run.end()
        }
        if places.source == source { try places.remove(places.model) }
        if places.plan?.source == source { try places.remove(places.incomplete) }
    }

    /// The complete models and their folders, in the order of the folders' names.
    public var models: [(source: Source, folder: URL)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
        return names.sorted().compactMap { name in
            let places = ModelPlaces(store: directory, name: name)
            guard let source = places.source, (try? source.folderName()) == name else { return nil }
            return (source, places.model)
        }
    }

    private func begin(_ source: Source, _ places: ModelPlaces) {
        let run = DownloadRun(source: source)
        let download = ModelDownload(
            source: source, places: places, client: client, report: run.report,
            freeSpace: freeSpace)
        runs[places.name] = run
        run.start {
            try await download.run()
        } end: {
            await self.remove(places.name)
        }
    }

    private func remove(_ name: String) { runs[name] = nil }

    private func folder(of source: Source, _ places: ModelPlaces) -> URL? {
        places.source == source ? places.model : nil
    }

    private func places(of source: Source) throws -> ModelPlaces {
        _ = try filePath(directory, "directory")
        return ModelPlaces(store: directory, name: try source.folderName())
    }

    private func checkClient() throws {
        try WebAddress.check(client.endpoint, "endpoint")
        // The token is not shown.
        if let token = client.token, token.isEmpty || !token.utf8.allSatisfy({ 33...126 ~= $0 }) {
            throw OpenELMError.invalidOption(
                name: "token", message: "token: expected letters, digits and `_`, found others")
        }
    }

    private func size(of folder: URL) -> Int {
        let names = (try? FileManager.default.subpathsOfDirectory(atPath: folder.path)) ?? []
        return names.reduce(0) { sum, name in
            name == ModelPlaces.sourceName
                ? sum : sum + (byteCount(of: folder.appending(path: name)) ?? 0)
        }
    }
}
