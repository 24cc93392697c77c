import Foundation
import OpenELM

/// The parts of the system that the app uses, replaced in tests.
struct ChatEnvironment: Sendable {
    /// The folder of settings, conversations and adapters.
    var directory: URL
    /// Folders with models in them.
    var documents: [URL] = []
    /// The model in the app's bundle.
    var sample: URL?
    /// Downloads models; `nil` offers none.
    var library: (any ModelLibrary)?
    /// The models to offer for download.
    var offered = DownloadableModel.offered
    /// Speaks a text to users of VoiceOver.
    var announce: @MainActor @Sendable (String) -> Void = { _ in }
    /// Puts a text on the pasteboard.
    var copy: @MainActor @Sendable (String) -> Void = { _ in }
    /// The bytes available for a model, if known.
    var available: @Sendable () -> Int? = { (try? Memory.available) ?? nil }
    /// The conditions that pause a training.
    var conditions: @Sendable () -> AsyncStream<TrainingConditions> = {
        TrainingConditions.updates()
    }
    /// The current time.
    var now: @Sendable () -> Date = { Date() }

    /// The app's own folders and bundle.
    static func standard() -> ChatEnvironment {
        func folders(_ kind: FileManager.SearchPathDirectory) -> [URL] {
            FileManager.default.urls(for: kind, in: .userDomainMask)
        }
        let support = folders(.applicationSupportDirectory).first
        return ChatEnvironment(
            directory: (support ?? FileManager.default.temporaryDirectory)
                .appending(path: "OpenELM Chat"),
            documents: folders(.documentDirectory),
            sample: Bundle.main.url(forResource: "tales", withExtension: nil),
            library: StoreLibrary(store: .shared))
    }
}
