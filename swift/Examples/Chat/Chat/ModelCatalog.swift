import Foundation
import Observation

/// A model that the user can choose.
struct ModelEntry: Identifiable, Equatable, Sendable {
    /// The origin of a model.
    enum Origin: Equatable, Sendable {
        /// The model in the app's bundle.
        case sample
        /// A folder of the user.
        case folder
        case download(DownloadableModel)
    }

    /// The state of a model on this device.
    enum State: Equatable, Sendable {
        case available(URL)
        /// Fraction downloaded so far, from 0 to 1.
        case downloading(Double)
        /// Fraction downloaded by a download that ended early.
        case incomplete(Double)
        case notDownloaded
    }

    let id: String
    let name: String
    let origin: Origin
    var state: State

    /// The model's folder, if the model is on this device.
    var folder: URL? { if case .available(let folder) = state { folder } else { nil } }
}

/// The models on this device and those that can be downloaded.
@MainActor @Observable final class ModelCatalog {
    private(set) var entries: [ModelEntry] = []
    /// The last error of a download or a deletion.
    private(set) var problem: String?

    @ObservationIgnored private let library: (any ModelLibrary)?
    @ObservationIgnored private let offered: [DownloadableModel]
    @ObservationIgnored private let documents: [URL]
    @ObservationIgnored private var picked: [URL] = []
    @ObservationIgnored private let sample: URL?
    @ObservationIgnored private var downloads: [ModelEntry.ID: Task<Void, Never>] = [:]

    /// Creates the catalog of the model `sample`, the models in the folders `documents`, and the
    /// models that `library` downloads.
    init(
        sample: URL?, documents: [URL], library: (any ModelLibrary)?,
        offered: [DownloadableModel] = DownloadableModel.offered
    ) {
        self.sample = sample
        self.documents = documents
        self.library = library
        self.offered = library == nil ? [] : offered
    }

    /// Reads the folders and the states of downloads again.
    func refresh() async {
        var found: [ModelEntry] = []
        if let sample, isModel(sample) {
            found.append(
                ModelEntry(
                    id: "sample", name: sample.lastPathComponent, origin: .sample,
                    state: .available(sample)))
        }
        for folder in picked + documents.flatMap({ models(in: $0) }) where !found.has(folder) {
            found.append(entry(folder))
        }
        for model in offered {
            guard let library else { continue }
            let state: ModelEntry.State =
                switch await library.availability(of: model) {
                case .available(let folder): .available(folder)
                case .incomplete(let share): .incomplete(share)
                case .notDownloaded: .notDownloaded
                }
            found.append(
                ModelEntry(
                    id: model.repository, name: model.name, origin: .download(model), state: state))
        }
        // A folder may have been picked, or a download started or ended, in the meantime.
        for folder in picked where !found.has(folder) { found.append(entry(folder)) }
        for index in found.indices where downloads[found[index].id] != nil {
            found[index].state = self[found[index].id]?.state ?? found[index].state
        }
        entries = found
    }

    /// The entry with this id.
    subscript(id: ModelEntry.ID) -> ModelEntry? { entries.first { $0.id == id } }

    /// Adds a folder that the user picked and returns its entry. Picking a folder again replaces
    /// its URL, because the new one carries a new access right.
    func add(_ folder: URL) -> ModelEntry {
        let entry = entry(folder)
        picked.removeAll { $0.path == folder.path }
        picked.append(folder)
        if let place = entries.firstIndex(where: { $0.id == entry.id }) {
            entries[place] = entry
        } else {
            entries.append(entry)
        }
        return entry
    }

    /// Starts or continues the download of a model.
    func download(_ id: ModelEntry.ID) {
        guard downloads[id] == nil, let library, let entry = self[id],
            case .download(let model) = entry.origin, entry.folder == nil
        else { return }
        problem = nil
        let before = if case .incomplete(let share) = entry.state { share } else { 0.0 }
        set(id, .downloading(before))
        let report: @MainActor (Double) -> Void = { [weak self] share in
            guard case .downloading(let before) = self?[id]?.state else { return }
            // Reports may arrive in another order.
            self?.set(id, .downloading(max(before, share)))
        }
        downloads[id] = Task {
            do {
                let folder = try await library.download(model) { share in
                    Task { await report(share) }
                }
                set(id, .available(folder))
            } catch {
                if !Task.isCancelled {
                    problem = localized("%@ was not downloaded: %@", model.name, errorText(error))
                }
                await readState(of: model)
            }
            downloads[id] = nil
        }
    }

    /// Stops a download. What was downloaded is kept for the next one.
    func cancelDownload(_ id: ModelEntry.ID) { downloads[id]?.cancel() }

    /// Waits until the download of a model has ended.
    func finishDownload(_ id: ModelEntry.ID) async { await downloads[id]?.value }

    /// Deletes a downloaded model, or the part of one.
    func delete(_ id: ModelEntry.ID) async {
        guard let library, case .download(let model) = self[id]?.origin else { return }
        problem = nil
        cancelDownload(id)
        await finishDownload(id)
        do { try await library.delete(model) } catch {
            problem = localized("%@ was not deleted: %@", model.name, errorText(error))
        }
        await readState(of: model)
    }

    private func readState(of model: DownloadableModel) async {
        switch await library?.availability(of: model) {
        case .available(let folder)?: set(model.repository, .available(folder))
        case .incomplete(let share)?: set(model.repository, .incomplete(share))
        case .notDownloaded?, nil: set(model.repository, .notDownloaded)
        }
    }

    private func set(_ id: ModelEntry.ID, _ state: ModelEntry.State) {
        guard let place = entries.firstIndex(where: { $0.id == id }) else { return }
        entries[place].state = state
    }

    private func entry(_ folder: URL) -> ModelEntry {
        // The container's path changes with an update of the app, so documents go by their name.
        let inDocuments = documents.contains { $0.path == folder.deletingLastPathComponent().path }
        return ModelEntry(
            id: inDocuments ? "documents/\(folder.lastPathComponent)" : folder.path,
            name: folder.lastPathComponent, origin: .folder, state: .available(folder))
    }

    private func models(in parent: URL) -> [URL] {
        let inside = try? FileManager.default.contentsOfDirectory(
            at: parent, includingPropertiesForKeys: nil)
        return (inside ?? []).filter { isModel($0) }.sorted { $0.path < $1.path }
    }

    private func isModel(_ folder: URL) -> Bool {
        FileManager.default.fileExists(atPath: folder.appending(path: "config.json").path)
    }
}

extension [ModelEntry] {
    fileprivate func has(_ folder: URL) -> Bool {
        contains { $0.folder?.path == folder.path }
    }
}
