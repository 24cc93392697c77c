import Foundation
import OpenELM

/// The package's store as the library of the app.
struct StoreLibrary: ModelLibrary {
    let store: ModelStore

    func availability(of model: DownloadableModel) async -> ModelAvailability {
        switch await store.availability(of: model.source) {
        case .available(let folder): .available(folder)
        case .downloading(let progress), .incomplete(let progress):
            .incomplete(progress.fractionCompleted)
        case .notDownloaded: .notDownloaded
        }
    }

    func download(
        _ model: DownloadableModel, progress: @escaping @Sendable (Double) -> Void
    ) async throws -> URL {
        try await store.download(model.source) { progress($0.fractionCompleted) }
    }

    func delete(_ model: DownloadableModel) async throws { try await store.delete(model.source) }
}

extension DownloadableModel {
    fileprivate var source: ModelStore.Source { .repository(repository) }
}
