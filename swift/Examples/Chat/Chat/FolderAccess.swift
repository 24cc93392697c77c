import Foundation

/// Access to a folder outside the app's container, for the lifetime of this object. Weights are
/// memory-mapped, so the access to a model's folder lasts as long as the model.
final class FolderAccess {
    #if canImport(Darwin)
        private let url: URL
        private let granted: Bool

        init(_ url: URL) {
            self.url = url
            // False for the app's own folders, which need no access right.
            granted = url.startAccessingSecurityScopedResource()
        }

        deinit {
            if granted { url.stopAccessingSecurityScopedResource() }
        }
    #else
        init(_ url: URL) {}
    #endif
}
