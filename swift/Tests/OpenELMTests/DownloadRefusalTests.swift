import Foundation
import Testing

@testable import OpenELM

private let small = ModelStore.Source.repository("local/small")

/// Requests that are refused, and servers that are busy or not trusted.
@Suite(.serialized) struct DownloadRefusalTests {
    @Test func refusedRequestsAreErrorsWithAdvice() async throws {
        typealias Case = (TestServer.Response, String?, String, String)
        let cases: [Case] = [
            (
                .init(status: 401, headers: ["X-Error-Code": "GatedRepo"]), nil, "access",
                "has no token; accept the license and make a token at"
            ),
            (
                .init(status: 403, headers: ["X-Error-Code": "GatedRepo"]), "hf_a", "access",
                "the token's account has no access"
            ),
            (
                .init(
                    status: 401,
                    headers: ["X-Error-Message": "Invalid credentials in Authorization header"]),
                "hf_a", "access", "refuses the token"
            ),
            (
                .init(status: 401, headers: ["X-Error-Code": "RepoNotFound"]), nil, "notFound",
                "or it is private and the store has no token"
            ),
            (.init(status: 404), "hf_a", "notFound", "or the token has no access to it"),
            (
                .init(status: 404, headers: ["X-Error-Code": "RevisionNotFound"]), nil, "notFound",
                "no such revision"
            ),
            (
                .init(status: 403, headers: ["X-Error-Message": "blocked"]), nil, "access",
                "refuses access (403): blocked"
            ),
            (.init(status: 418), nil, "invalidDownload", "status 418"),
            (.init(body: Data("<html>".utf8)), nil, "invalidDownload", "found another answer"),
            (
                .init(body: Data("{\"sha\": \"../../x\"}".utf8)), nil, "invalidDownload",
                "expected a commit"
            ),
        ]
        let hub = try await TestHub.small()
        for (answer, token, kind, part) in cases {
            hub.change { $0.answers = [answer] }
            let before = hub.hub.requests.count
            let error = await failure { try await hub.store(token: token).download(small) }
            let found = error.map { String("\($0)") } ?? ""
            #expect(caseName(error) == kind, "\(answer.status): \(error as Any)")
            #expect(found.hasPrefix("local/small: ") && found.contains(part), "\(found)")
            #expect(!found.contains("hf_a"))
            #expect(error?.recoverySuggestion?.isEmpty == false)
            #expect(hub.hub.requests.count == before + 1)
        }
        #expect(!FileManager.default.fileExists(atPath: hub.directory.path))
        // A server of files that is no Hub.
        let source = ModelStore.Source.files(
            "mine",
            [
                .init(
                    url: hub.cdn.url.appending(path: "x"),
                    sha256: String(repeating: "0", count: 64), size: 1)
            ])
        let error = await failure { try await hub.store().download(source) }
        #expect(caseName(error) == "notFound")
        #expect(error?.description.contains("mine: x: no such file at http://127.0.0.1:") == true)
    }

    @Test func busyAndBrokenServersAreTriedAgain() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.answers = [
                .init(status: 429, headers: ["Retry-After": "7"]), .init(status: 503),
                .init(status: 500), .init(status: 429),
            ]
        }
        let waits = Recorded<Duration>()
        let store = hub.store(wait: { waits.append($0) })
        try expectComplete(hub, try await store.download(small))
        #expect(
            waits.values == [.seconds(7), .seconds(1), .seconds(2), .seconds(4)],
            "\(waits.values)")
    }

    @Test func anExhaustedServerIsAnError() async throws {
        for (answer, requests, part) in [
            (TestServer.Response(status: 503), 5, "status 503 of http://127.0.0.1"),
            (.init(status: 429), 5, "too many requests (429); a token has a higher limit"),
            (.init(status: 429, headers: ["Retry-After": "4000"]), 1, "too many requests (429)"),
        ] {
            let hub = try await TestHub.small()
            hub.change { $0.answers = Array(repeating: answer, count: 9) }
            let error = await failure { try await hub.store().download(small) }
            #expect(caseName(error) == "network")
            #expect(error?.description.contains("local/small: ") == true)
            #expect(error?.description.contains(part) == true, "\(error as Any)")
            #expect(hub.hub.requests.count == requests)
        }
        // Nothing listens there.
        let hub = try await TestHub.small()
        hub.hub.end()
        let waits = Recorded<Duration>()
        let error = await failure {
            try await hub.store(wait: { waits.append($0) }).download(small)
        }
        #expect(caseName(error) == "network", "\(error as Any)")
        #expect(waits.values.count == 4)
    }

    @Test func aDownloadThatHasBegunNeedsNoDescription() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.cuts = [100_000, 0, 0, 0, 0, 0] }
        #expect(await failure { try await hub.store().download(small) } != nil)
        hub.change { $0.answers = Array(repeating: .init(status: 503), count: 5) }
        try expectComplete(hub, try await hub.store().download(small))
        #expect(hub.cdn.sent == TestHub.weights.count)
    }

    @Test func aServerThatSendsNothingMoreIsLeft() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [100_000]
            $0.holds = true
        }
        let folder = try await hub.store(timeout: 1).download(small)
        try expectComplete(hub, folder)
        #expect(hub.cdn.requests.last?.headers["range"] == "bytes=100000-")
    }

    @Test func theTokenStaysWithTheHub() async throws {
        let hub = try await TestHub.small()
        hub.change { $0.token = "hf_member" }
        #expect(caseName(await failure { try await hub.store().download(small) }) == "access")
        let store = hub.store(token: "hf_member")
        try expectComplete(hub, try await store.download(small))
        #expect(!hub.cdn.requests.isEmpty)
        #expect(hub.cdn.requests.allSatisfy { $0.headers["authorization"] == nil })
        // Nor is it in the store.
        let names = try FileManager.default.subpathsOfDirectory(atPath: hub.directory.path)
        for name in names {
            let file = hub.directory.appending(path: name)
            guard let data = try? Data(contentsOf: file) else { continue }
            #expect(data.range(of: Data("hf_member".utf8)) == nil, "\(name)")
        }
        try await store.delete(small)
        // Redirects within the Hub keep it; to other places they are refused.
        for target in ["http://example.com/x", "file:///etc/passwd", "ftp://127.0.0.1/x"] {
            hub.change { $0.redirect = target }
            let error = await failure { try await store.download(small) }
            #expect(error != nil, "\(target)")
            #expect(error?.description.contains("hf_member") == false)
            await expectNothing(hub)
        }
        hub.change {
            $0.redirect = "\(hub.hub.url.absoluteString)/local/small/resolve/\($0.commit)/loop"
            $0.repositories["local/small"]?["loop"] = .init(data: TestHub.weights)
        }
        try expectComplete(hub, try await store.download(small))
    }

    @Test func endlessRedirectsAreAnError() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.redirect =
                "\(hub.hub.url.absoluteString)/local/small/resolve/\($0.commit)/model.safetensors"
        }
        let error = await failure { try await hub.store().download(small) }
        #expect(error?.description.contains("too many redirects") == true, "\(error as Any)")
        #expect(hub.hub.requests.count < 20)
    }

    @Test func namesFromTheServerStayInTheStore() async throws {
        for name in [
            "../../../escaped.json", "/tmp/escaped.json", "a/../../escaped.json", "", "a\\b.json",
            "a\0.json", "..",
        ] {
            let hub = try await TestHub.small()
            try await hub.add("local/small", [name: (Data([1]), false)])
            let error = await failure { try await hub.store().download(small) }
            #expect(caseName(error) == "invalidDownload", "\(name)")
            #expect(error?.description.hasPrefix("local/small: the unsafe file name") == true)
            #expect(!FileManager.default.fileExists(atPath: hub.directory.path))
        }
    }

    @Test func aFullDiskIsFoundBeforeTheDownload() async throws {
        let hub = try await TestHub.small()
        let error = await failure {
            try await hub.store(freeSpace: { _ in 600_004 }).download(small)
        }
        #expect(
            error
                == .insufficientSpace(
                    path: hub.directory.path, needed: 600_005, available: 600_004))
        #expect(!FileManager.default.fileExists(atPath: hub.directory.path))
        #expect(hub.cdn.requests.isEmpty)
        #expect(systemFreeSpace(hub.directory.appending(path: "a/b")).map { $0 > 0 } == true)
        // Bytes of an earlier download count.
        hub.change { $0.cuts = [100_000, 0, 0, 0, 0, 0] }
        #expect(await failure { try await hub.store().download(small) } != nil)
        let folder = try await hub.store(freeSpace: { _ in 500_000 }).download(small)
        try expectComplete(hub, folder)
    }
}
