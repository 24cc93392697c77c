import Foundation

/// A model that the app offers for download.
struct DownloadableModel: Hashable, Sendable {
    /// Owner and name of the repository.
    let repository: String
    /// Approximate size of the files in bytes, from the number of parameters.
    let bytes: Int

    /// The name of the model.
    var name: String { String(repository.split(separator: "/").last ?? Substring(repository)) }

    /// Instruct models with a tokenizer. Their weights are under Apple's licence.
    static let offered = [
        DownloadableModel(repository: "mlx-community/OpenELM-270M-Instruct", bytes: 543_000_000),
        DownloadableModel(repository: "mlx-community/OpenELM-450M-Instruct", bytes: 914_000_000),
        DownloadableModel(
            repository: "mlx-community/OpenELM-1_1B-Instruct-4bit", bytes: 608_000_000),
    ]
}

/// The state of a model on this device.
enum ModelAvailability: Equatable, Sendable {
    case available(URL)
    /// A part of the model is on the device, as a fraction from 0 to 1.
    case incomplete(Double)
    case notDownloaded
}

/// Downloads models and keeps them on this device.
protocol ModelLibrary: Sendable {
    /// Returns the state of `model` on this device.
    func availability(of model: DownloadableModel) async -> ModelAvailability
    /// Downloads `model` and returns its folder. Calls `progress` with the fraction downloaded, from
    /// 0 to 1. A cancelled download continues with the next call.
    func download(
        _ model: DownloadableModel, progress: @escaping @Sendable (Double) -> Void
    ) async throws -> URL
    /// Deletes `model`, and parts of it.
    func delete(_ model: DownloadableModel) async throws
}
