import Foundation
import Testing

@testable import OpenELM

private let small = ModelStore.Source.repository("local/small")

/// Faults of servers and connections: each ends in the right file or a clear error.
@Suite(.serialized) struct DownloadFaultTests {
    @Test func continuesAtTheByteWhereTheConnectionEnded() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.cuts = [1, 0, 70_000, 3, 250_000] }
        let seen = Recorded<ModelStore.Progress>()
        let folder = try await hub.store().download(small) { seen.append($0) }
        try expectComplete(hub, folder)
        let requests = hub.cdn.requests
        #expect(
            requests.map { $0.headers["range"] } == [
                nil, "bytes=1-", "bytes=1-", "bytes=70001-", "bytes=70004-", "bytes=320004-",
            ])
        #expect(
            requests.dropFirst().allSatisfy { $0.headers["if-range"]?.hasSuffix("-1\"") == true })
        #expect(hub.cdn.sent == TestHub.weights.count)
        let values = seen.values.map(\.completedBytes)
        #expect(values == values.sorted())
    }

    @Test func continuesAfterARelaunch() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [100_000]
            $0.holds = true
        }
        let store = hub.store()
        let task = Task { try await store.download(small) }
        #expect(
            await eventually {
                guard case .downloading(let progress) = await store.availability(of: small)
                else { return false }
                return progress.completedBytes >= 100_000
            })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        let again = hub.store()
        for store in [store, again] {
            guard case .incomplete(let progress) = await store.availability(of: small) else {
                Issue.record("the download is not incomplete")
                return
            }
            #expect(progress.completedBytes >= 100_000)
            #expect(progress.totalBytes == TestHub.weights.count + 5)
            #expect(await store.models.isEmpty)
        }
        let seen = Recorded<ModelStore.Progress>()
        let folder = try await again.download(small) { seen.append($0) }
        try expectComplete(hub, folder)
        #expect(hub.cdn.sent == TestHub.weights.count)
        #expect(hub.cdn.requests.last?.headers["range"] == "bytes=100000-")
        #expect(seen.values.first.map { $0.completedBytes >= 100_000 } == true)
    }

    @Test func startsAgainWithoutRanges() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [200_000, 100_000]
            $0.ignoresRange = true
        }
        let seen = Recorded<ModelStore.Progress>()
        let folder = try await hub.store().download(small) { seen.append($0) }
        try expectComplete(hub, folder)
        #expect(hub.cdn.sent == TestHub.weights.count + 300_000)
        let values = seen.values.map(\.completedBytes)
        #expect(values == values.sorted())
        #expect(seen.values.last?.fractionCompleted == 1)
    }

    /// Bodies without a length end with their connection: an early end is no complete file.
    @Test func aBodyWithoutALengthMayEndEarly() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.hasLength = false }
        try expectComplete(hub, try await hub.store().download(small))
        try await hub.store().delete(small)
        hub.change { $0.cuts = [1000] }
        let error = await failure { try await hub.store().download(small) }
        guard case .invalidDownload(_, let message)? = error else {
            Issue.record("\(error as Any)")
            return
        }
        #expect(
            message == "local/small: model.safetensors: expected 600000 bytes, found 1000; removed")
    }

    @Test func startsAgainIfTheFileHasChanged() async throws {
        let hub = try await TestHub.small()
        let old = Data(repeating: 7, count: TestHub.weights.count)
        let version = Recorded<Int>()
        let server = TestServer { request in
            guard version.values.isEmpty else {
                return .file(TestHub.weights, etag: "\"2\"", for: request)
            }
            version.append(2)
            var response = TestServer.Response.file(old, etag: "\"1\"", for: request)
            response.cut = 300_000
            return response
        }
        defer { server.end() }
        let source = ModelStore.Source.files(
            "mine",
            [
                .init(
                    url: server.url.appending(path: "model.safetensors"),
                    sha256: try await hub.sha256(TestHub.weights), size: TestHub.weights.count)
            ])
        let folder = try await hub.store().download(source)
        let file = folder.appending(path: "model.safetensors")
        #expect(try Data(contentsOf: file) == TestHub.weights)
        #expect(server.requests.map { $0.headers["if-range"] } == [nil, "\"1\""])
        #expect(server.sent == 300_000 + TestHub.weights.count)
    }

    /// A repository's file may change between two launches.
    @Test func aNewCommitReplacesTheBeginningOfAnOldFile() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.cuts = Array(repeating: 0, count: 5) + [] }
        hub.change { $0.cuts = [100_000, 0, 0, 0, 0, 0] }
        #expect(await failure { try await hub.store().download(small) } != nil)
        let new = Data(TestHub.weights.reversed())
        try await hub.add("local/small", ["model.safetensors": (new, true)])
        hub.change { $0.commit = String(TestHub.commit.reversed()) }
        let folder = try await hub.store().download(small)
        #expect(try Data(contentsOf: folder.appending(path: "model.safetensors")) == new)
        #expect(hub.cdn.requests.last?.headers["range"] == nil)
        #expect(await hub.store().models.count == 1)
    }

    @Test func wrongRangesStartAgain() async throws {
        for header in ["bytes 0-599999/600000", "bytes 100000-599999/600001", "bytes", ""] {
            let hub = try await TestHub.small()
            let sha256 = try await hub.sha256(TestHub.weights)
            let server = TestServer { request in
                var response = TestServer.Response.file(
                    TestHub.weights, etag: "\"1\"", for: request)
                if request.headers["range"] == nil {
                    response.cut = request.headers["x"] == nil ? 100_000 : nil
                } else {
                    response.headers["Content-Range"] = header
                }
                return response
            }
            defer { server.end() }
            let count = Recorded<Int>()
            let store = hub.store(wait: { _ in
                count.append(1)
                if count.values.count == 2 {
                    server.handle { .file(TestHub.weights, etag: "\"1\"", for: $0) }
                }
            })
            let source = ModelStore.Source.files(
                "mine", [.init(url: server.url.appending(path: "w"), sha256: sha256, size: 600_000)]
            )
            let folder = try await store.download(source)
            #expect(try Data(contentsOf: folder.appending(path: "w")) == TestHub.weights)
            #expect(server.requests.last?.headers["range"] == nil)
        }
    }

    @Test func refusedRangesStartAgain() async throws {
        let hub = try await TestHub.small()
        let server = TestServer { request in
            guard request.headers["range"] == nil else { return .init(status: 416) }
            return .file(TestHub.weights, etag: "\"1\"", for: request)
        }
        defer { server.end() }
        let part = hub.directory.appending(path: ".incomplete/files--mine/parts")
        let source = ModelStore.Source.files(
            "mine",
            [
                .init(
                    url: server.url.appending(path: "w"),
                    sha256: try await hub.sha256(TestHub.weights), size: 600_000)
            ])
        try FileManager.default.createDirectory(at: part, withIntermediateDirectories: true)
        try Data([1, 2]).write(to: part.appending(path: "w.part"))
        try Data("\"1\"".utf8).write(to: part.appending(path: "w.part.etag"))
        let plan = try await HubClient(
            endpoint: hub.hub.url, token: nil, transport: DataTransport(), wait: { _ in },
            timeout: 9
        ).plan(for: source)
        try JSONEncoder().encode(plan).write(
            to: part.deletingLastPathComponent().appending(path: "plan.json"))
        let folder = try await hub.store().download(source)
        #expect(try Data(contentsOf: folder.appending(path: "w")) == TestHub.weights)
        #expect(server.requests.map { $0.headers["range"] } == ["bytes=2-", nil])
    }

    @Test func wrongBytesAreNotKept() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.corrupt = 1 }
        let error = await failure { try await hub.store().download(small) }
        guard case .invalidDownload("local/small: model.safetensors", let message)? = error else {
            Issue.record("\(error as Any)")
            return
        }
        let sha256 = try await hub.sha256(TestHub.weights)
        #expect(message.contains("expected the SHA-256 \(sha256), found "))
        #expect(message.hasSuffix("; removed"))
        await expectNothing(hub)
        let parts = hub.directory.appending(path: ".incomplete/models--local--small/parts")
        #expect(try FileManager.default.contentsOfDirectory(atPath: parts.path).isEmpty)
        try expectComplete(hub, try await hub.store().download(small))
    }

    /// A wrong byte before an interruption: the file is downloaded again.
    @Test func wrongBytesOfAnEarlierDownloadAreReplaced() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [100_000, 0, 0, 0, 0, 0]
            $0.corrupt = 1
        }
        #expect(await failure { try await hub.store().download(small) } != nil)
        let folder = try await hub.store().download(small)
        try expectComplete(hub, folder)
        #expect(hub.cdn.sent == 100_000 + 500_000 + 600_000)
    }

    @Test func wrongSizesAreErrors() async throws {
        let hub = try await TestHub.small()
        let sha256 = try await hub.sha256(TestHub.weights)
        let server = TestServer { .file(TestHub.weights, etag: "\"1\"", for: $0) }
        defer { server.end() }
        for (size, hasLength, found) in [
            (600_001, true, "600000"), (599_999, true, "600000"), (600_001, false, "600000"),
            (599_999, false, "more"),
        ] {
            server.handle { request in
                var response = TestServer.Response.file(TestHub.weights, for: request)
                response.hasLength = hasLength
                return response
            }
            let source = ModelStore.Source.files(
                "mine",
                [.init(url: server.url.appending(path: "w.bin"), sha256: sha256, size: size)])
            let before = server.requests.count
            let error = await failure { try await hub.store().download(source) }
            #expect(
                error?.description.contains(
                    "mine: w.bin: expected \(size) bytes, found \(found)") == true,
                "\(error as Any)")
            #expect(server.requests.count == before + 1)
            let part = hub.directory.appending(path: ".incomplete/files--mine/parts/w.bin.part")
            #expect(!FileManager.default.fileExists(atPath: part.path))
        }
    }

    /// The transport of background sessions, with the default session.
    @Test(.enabled(if: usesDownloadTasks)) func downloadTasksFillFiles() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.token = "hf_member" }
        let transport = DownloadTaskTransport(configuration: .ephemeral)
        let store = hub.store(token: "hf_member", transport: transport)
        let seen = Recorded<ModelStore.Progress>()
        let folder = try await store.download(small) { seen.append($0) }
        try expectComplete(hub, folder)
        #expect(hub.cdn.requests.allSatisfy { $0.headers["authorization"] == nil })
        let values = seen.values.map(\.completedBytes)
        #expect(values == values.sorted() && values.last == 600_005)
        try await store.delete(small)

        // A part of the other transport is continued.
        hub.change { $0.cuts = [100_000, 0, 0, 0, 0, 0] }
        #expect(
            await failure { try await hub.store(token: "hf_member").download(small) } != nil)
        try expectComplete(hub, try await store.download(small))
        #expect(hub.cdn.requests.last?.headers["range"] == "bytes=100000-")
        try await store.delete(small)

        // Errors.
        hub.change { $0.corrupt = 1 }
        #expect(caseName(await failure { try await store.download(small) }) == "invalidDownload")
        hub.change { $0.redirect = "\(hub.cdn.url.absoluteString)/absent" }
        #expect(caseName(await failure { try await store.download(small) }) != nil)
    }

    @Test(.enabled(if: usesDownloadTasks)) func aCancelledDownloadTaskEnds() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [100_000]
            $0.holds = true
        }
        let store = hub.store(transport: DownloadTaskTransport(configuration: .ephemeral))
        let task = Task { try await store.download(small) }
        #expect(await eventually { hub.cdn.sent == 100_000 })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        guard case .incomplete = await store.availability(of: small) else {
            Issue.record("not incomplete")
            return
        }
        try expectComplete(hub, try await store.download(small))
    }
}

/// FoundationNetworking's download tasks end the process in one of about 50 runs, so that their
/// tests run on request on Linux: `OPENELM_DOWNLOAD_TASKS=1`. Apps use them on Apple systems only.
private let usesDownloadTasks: Bool = {
    #if os(Linux)
        ProcessInfo.processInfo.environment["OPENELM_DOWNLOAD_TASKS"] != nil
    #else
        true
    #endif
}()
