import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@Suite struct StoreLibraryTests {
    @Test func reportsAndDeletesThroughTheStore() async throws {
        let folder = try TemporaryFolder()
        // Nothing listens at this address.
        let endpoint = try #require(URL(string: "http://127.0.0.1:1"))
        let library = StoreLibrary(
            store: ModelStore(
                directory: folder.url.appending(path: "Models"), endpoint: endpoint,
                inBackground: false))
        #expect(await library.availability(of: fakeModel) == .notDownloaded)
        try await library.delete(fakeModel)
        let bad = DownloadableModel(repository: "no-owner", bytes: 1)
        #expect(await library.availability(of: bad) == .notDownloaded)
        await #expect(throws: OpenELMError.self) {
            _ = try await library.download(bad) { _ in }
        }
        await #expect(throws: OpenELMError.self) { try await library.delete(bad) }
        // A cancelled download is no error of the library.
        let download = Task { try await library.download(fakeModel) { _ in } }
        download.cancel()
        await #expect(throws: CancellationError.self) { _ = try await download.value }
    }
}
