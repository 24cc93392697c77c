import Foundation

/// Leave to read a folder that was picked outside the app's own, as long as this is held. Weights
/// are mapped from their files, so the model's is held as long as the model.
final class FolderAccess {
    #if canImport(Darwin)
        private let url: URL
        private let granted: Bool

        init(_ url: URL) {
            self.url = url
            // False for the app's own folders, which need no leave.
            granted = url.startAccessingSecurityScopedResource()
        }

        deinit {
            if granted { url.stopAccessingSecurityScopedResource() }
        }
    #else
        init(_ url: URL) {}
    #endif
}
