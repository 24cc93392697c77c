import Foundation
import Testing

@testable import openelm_chat

@MainActor @Suite struct ModelCatalogTests {
    private let id = fakeModel.repository

    private func catalog(_ library: FakeLibrary?, documents: [URL] = []) async -> ModelCatalog {
        let catalog = ModelCatalog(
            sample: nil, documents: documents, library: library, offered: [fakeModel])
        await catalog.refresh()
        return catalog
    }

    @Test func listsTheSampleFoldersAndDownloads() async throws {
        let folder = try TemporaryFolder()
        try folder.write("{}", to: "b/config.json")
        try folder.write("{}", to: "a/config.json")
        try folder.write("", to: "no-model/file")
        let library = FakeLibrary(.incomplete(0.5))
        let catalog = ModelCatalog(
            sample: tales, documents: [folder.url], library: library, offered: [fakeModel])
        await catalog.refresh()
        await catalog.refresh()
        #expect(catalog.entries.map(\.id) == ["sample", "documents/a", "documents/b", id])
        #expect(catalog.entries.map(\.name) == ["tales", "a", "b", "Fake-Instruct"])
        #expect(catalog[id]?.state == .incomplete(0.5))
        // A picked folder is listed once, also after the next refresh.
        let picked = try folder.write("{}", to: "elsewhere/mine/config.json")
            .deletingLastPathComponent()
        #expect(catalog.add(picked).folder == picked)
        _ = catalog.add(picked)
        _ = catalog.add(folder.url.appending(path: "a"))
        await catalog.refresh()
        #expect(
            Set(catalog.entries.map(\.id))
                == ["sample", "documents/a", "documents/b", picked.path, id])
        #expect(catalog.entries.count == 5)
    }

    @Test func offersNothingWithoutALibrary() async {
        let catalog = await catalog(nil)
        #expect(catalog.entries.isEmpty)
        catalog.download(id)
        await catalog.delete(id)
        #expect(catalog.problem == nil)
    }

    @Test func downloadsAModel() async throws {
        let library = FakeLibrary()
        let catalog = await catalog(library)
        #expect(catalog[id]?.state == .notDownloaded)
        catalog.download(id)
        catalog.download(id)
        #expect(catalog[id]?.state == .downloading(0))
        // The second report has a smaller fraction.
        try await eventually { catalog[id]?.state == .downloading(0.5) }
        await catalog.refresh()
        #expect(catalog[id]?.state == .downloading(0.5), "a refresh ended the download")
        library.release()
        await catalog.finishDownload(id)
        #expect(catalog[id]?.state == .available(tales) && catalog[id]?.folder == tales)
        #expect(await library.downloads == 1 && catalog.problem == nil)
        catalog.download(id)
        #expect(await library.downloads == 1, "downloaded again")
        await catalog.refresh()
        #expect(catalog[id]?.folder == tales)
    }

    @Test func aFailedDownloadIsReportedAndContinued() async throws {
        let library = FakeLibrary()
        let catalog = await catalog(library)
        await library.fail(with: "no connection")
        catalog.download(id)
        library.release()
        await catalog.finishDownload(id)
        #expect(catalog.problem?.contains("Fake-Instruct") == true)
        #expect(catalog.problem?.contains("no connection") == true)
        #expect(catalog[id]?.state == .incomplete(0.5))
        await library.fail(with: nil)
        catalog.download(id)
        #expect(catalog.problem == nil && catalog[id]?.state == .downloading(0.5))
        library.release()
        await catalog.finishDownload(id)
        #expect(catalog[id]?.folder == tales)
    }

    @Test func aCancelledDownloadIsNoError() async throws {
        let library = FakeLibrary()
        let catalog = await catalog(library)
        catalog.download(id)
        try await eventually { await library.downloads == 1 }
        catalog.cancelDownload(id)
        await catalog.finishDownload(id)
        #expect(catalog.problem == nil && catalog[id]?.state == .incomplete(0.5))
    }

    @Test func deletesAModelAndAPartOfOne() async throws {
        let library = FakeLibrary()
        let catalog = await catalog(library)
        catalog.download(id)
        try await eventually { await library.downloads == 1 }
        await catalog.delete(id)
        #expect(catalog[id]?.state == .notDownloaded && catalog.problem == nil)
        #expect(await library.deletions == 1)
        await library.fail(with: "no permission")
        await catalog.delete(id)
        #expect(catalog.problem?.contains("no permission") == true)
    }
}
