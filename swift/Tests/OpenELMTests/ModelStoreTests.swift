import Foundation
import Testing

@testable import OpenELM

private let small = ModelStore.Source.repository("local/small")

@Suite(.serialized) struct ModelStoreTests {
    @Test func downloadsAModelThatLoads() async throws {
        let hub = try TestHub()
        var files: [String: (Data, Bool)] = [:]
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
        {
            let data = try Data(contentsOf: tales.appending(path: name))
            files[name] = (data, name == "model.safetensors")
        }
        try await hub.add("local/tales", files)
        let store = hub.store(token: "hf_secret")
        #expect(await store.availability(of: .repository("local/tales")) == .notDownloaded)
        let seen = Recorded<ModelStore.Progress>()
        let model = try await LanguageModel(
            repository: "local/tales", store: store, progress: { seen.append($0) })
        #expect(try await !model.generate("The king").isEmpty)

        let folder = hub.directory.appending(path: "models--local--tales")
        #expect(await store.availability(of: .repository("local/tales")) == .available(folder))
        let models = await store.models
        #expect(models.map(\.folder) == [folder])
        #expect(models.map(\.source) == [.repository("local/tales")])
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(Set(names) == Set(files.keys).union([".source.json"]))
        // The files of a download are no longer there.
        let rest = try FileManager.default.contentsOfDirectory(atPath: hub.directory.path)
        #expect(Set(rest).isSubset(of: ["models--local--tales", ".incomplete"]))

        // The numbers never decrease and end with all bytes.
        let values = seen.values
        #expect(values.count > 2)
        #expect(
            zip(values, values.dropFirst()).allSatisfy { $0.completedBytes <= $1.completedBytes })
        #expect(values.last?.fractionCompleted == 1)
        #expect(values.last?.totalBytes == files.values.reduce(0) { $0 + $1.0.count })

        // The Hub received the token, the other host did not.
        #expect(
            hub.hub.requests.allSatisfy { $0.headers["authorization"] == "Bearer hf_secret" })
        #expect(hub.cdn.requests.count == 1)
        #expect(hub.cdn.requests.allSatisfy { $0.headers["authorization"] == nil })
        // The second time nothing is requested, also by another store.
        let before = hub.hub.requests.count
        #expect(try await hub.store().download(.repository("local/tales")) == folder)
        #expect(hub.hub.requests.count == before)
    }

    @Test func downloadsFilesOfAnyServer() async throws {
        let hub = try await TestHub.small()
        let data = TestHub.weights
        let server = TestServer { .file(data, etag: "\"1\"", for: $0) }
        defer { server.end() }
        let sha256 = try await hub.sha256(data)
        let url = server.url.appending(path: "a/model.safetensors")
        let source = ModelStore.Source.files(
            "mine",
            [
                .init(url: url, sha256: sha256.uppercased(), size: data.count),
                .init(url: url, name: "sub/weights.safetensors", sha256: sha256, size: data.count),
                .init(
                    url: url, name: "empty.txt", sha256: try await hub.sha256(Data()), size: 0),
            ])
        let store = hub.store(token: "hf_secret")
        let folder = try await store.download(source)
        #expect(folder.lastPathComponent == "files--mine")
        for name in ["model.safetensors", "sub/weights.safetensors"] {
            #expect(try Data(contentsOf: folder.appending(path: name)) == data)
        }
        #expect(try Data(contentsOf: folder.appending(path: "empty.txt")).isEmpty)
        #expect(server.requests.allSatisfy { $0.headers["authorization"] == nil })

        // Another list replaces the model.
        let other = ModelStore.Source.files(
            "mine", [.init(url: url, name: "b.bin", sha256: sha256, size: data.count)])
        #expect(await store.availability(of: other) == .notDownloaded)
        #expect(try await store.download(other) == folder)
        #expect(await store.availability(of: source) == .notDownloaded)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(Set(names) == ["b.bin", ".source.json"])
    }

    @Test func choosesTheFilesOfAModel() async throws {
        let hub = try await TestHub.small()
        let folder = try await hub.store().download(small)
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(
            Set(names) == ["config.json", "tokenizer.json", "model.safetensors", ".source.json"])

        // PyTorch's weights without safetensors, and adapters.
        try await hub.add(
            "local/torch",
            [
                "config.json": (Data("{}".utf8), false), "tokenizer.model": (Data([1]), true),
                "pytorch_model.bin": (Data([2]), true), "model.gguf": (Data([3]), true),
            ])
        let torch = try await hub.store().download(.repository("local/torch"))
        #expect(FileManager.default.fileExists(atPath: torch.path + "/pytorch_model.bin"))
        #expect(!FileManager.default.fileExists(atPath: torch.path + "/model.gguf"))
        try await hub.add(
            "local/adapter",
            [
                "adapter_config.json": (Data("{}".utf8), false), "run.json": (Data([1]), false),
                "adapters.safetensors": (Data([2]), true), "adapter_model.bin": (Data([3]), true),
            ])
        let adapter = try await hub.store().download(.repository("local/adapter"))
        let found = try FileManager.default.contentsOfDirectory(atPath: adapter.path)
        #expect(
            Set(found) == ["adapter_config.json", "adapters.safetensors", ".source.json"])
        try await hub.add("local/odd", ["README.md": (Data([1]), false)])
        let error = await failure { try await hub.store().download(.repository("local/odd")) }
        #expect(error?.description.contains("expected a model (config.json and") == true)
    }

    @Test func aTokenizerMayBeInAnotherPlace() async throws {
        let hub = try TestHub()
        try await hub.add(
            "local/bare",
            ["config.json": (Data("{}".utf8), false), "model.safetensors": (Data([1]), true)])
        let tokenizer = Data("[2]".utf8)
        try await hub.add("local/small", ["tokenizer.json": (tokenizer, false)])
        let store = hub.store()
        let error = await failure { try await store.download(.repository("local/bare")) }
        guard case .notFound("local/bare", let message)? = error else {
            Issue.record("\(error as Any)")
            return
        }
        #expect(message.contains("the repository has no tokenizer; the source's `tokenizer`"))
        #expect(message.contains("mlx-community/OpenELM-270M-Instruct"))
        #expect(hub.cdn.requests.isEmpty)

        let separate = ModelStore.Source.repository("local/bare", tokenizer: .separate)
        let folder = try await store.download(separate)
        let file = folder.appending(path: "tokenizer.json")
        #expect(!FileManager.default.fileExists(atPath: file.path))

        let copy = ModelStore.Source.repository(
            "local/bare", tokenizer: .repository("local/small"))
        #expect(try await store.download(copy) == folder)
        #expect(try Data(contentsOf: file) == tokenizer)

        let server = TestServer { .file(Data("[3]".utf8), for: $0) }
        defer { server.end() }
        let remote = ModelStore.RemoteFile(
            url: server.url.appending(path: "tokenizer.json"),
            sha256: try await hub.sha256(Data("[3]".utf8)), size: 3)
        let files = ModelStore.Source.repository("local/bare", tokenizer: .files([remote]))
        #expect(try await store.download(files) == folder)
        #expect(try Data(contentsOf: file) == Data("[3]".utf8))

        let none = ModelStore.Source.repository(
            "local/bare", tokenizer: .repository("local/bare"))
        let missing = await failure { try await store.download(none) }
        #expect(missing?.description.contains("expected tokenizer.json or tokenizer.model") == true)
    }

    @Test func callsForOneSourceShareADownload() async throws {
        let hub = try await TestHub.small()
        hub.change {
            $0.cuts = [100_000]
            $0.holds = true
        }
        let store = hub.store()
        let first = Task { try await store.download(small) }
        #expect(await eventually { hub.cdn.sent == 100_000 })
        let seen = Recorded<ModelStore.Progress>()
        let second = Task { try await store.download(small) { seen.append($0) } }
        #expect(await eventually { !seen.values.isEmpty })
        guard case .downloading = await store.availability(of: small) else {
            Issue.record("not downloading")
            return
        }
        // Another store of the process may not write there.
        let other = await failure { try await hub.store().download(small) }
        #expect(other?.description.contains("another store downloads this model") == true)
        // The download continues for the second caller.
        first.cancel()
        await #expect(throws: CancellationError.self) { try await first.value }
        hub.cdn.endConnections()
        let folder = try await second.value
        #expect(
            try Data(contentsOf: folder.appending(path: "model.safetensors")) == TestHub.weights)
        #expect(hub.cdn.requests.count == 2)
        #expect(seen.values.last?.fractionCompleted == 1)
    }

    @Test func deletesCompleteAndIncompleteModels() async throws {
        let hub = try await TestHub.small()
        let outside = hub.folder.url.appending(path: "outside")
        try FileManager.default.createDirectory(at: outside, withIntermediateDirectories: true)
        let kept = outside.appending(path: "kept.txt")
        try Data([1]).write(to: kept)
        let store = hub.store()
        try await store.delete(small)

        let folder = try await store.download(small)
        let link = folder.appending(path: "link")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: outside)
        try await store.delete(small)
        #expect(await store.availability(of: small) == .notDownloaded)
        #expect(await store.models.isEmpty)
        #expect(!FileManager.default.fileExists(atPath: folder.path))
        #expect(FileManager.default.fileExists(atPath: kept.path))

        // An incomplete download, and one in progress.
        hub.change {
            $0.cuts = [100_000]
            $0.holds = true
        }
        let task = Task { try await store.download(small) }
        #expect(await eventually { hub.cdn.sent >= 700_000 })
        try await store.delete(small)
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(await store.availability(of: small) == .notDownloaded)
        let incomplete = hub.directory.appending(path: ".incomplete")
        let rest = try FileManager.default.contentsOfDirectory(atPath: incomplete.path)
        #expect(rest.isEmpty)

        // A link in place of a model's folder.
        let place = hub.directory.appending(path: "models--local--small")
        try FileManager.default.createSymbolicLink(at: place, withDestinationURL: outside)
        try JSONEncoder().encode(small).write(to: outside.appending(path: ".source.json"))
        try await store.delete(small)
        #expect(FileManager.default.fileExists(atPath: kept.path))
        #expect(!FileManager.default.fileExists(atPath: place.path))
    }

    @Test func refusesSourcesThatAreNone() async throws {
        let hub = try await TestHub.small()
        let store = hub.store()
        let web = hub.hub.url.appending(path: "x")
        let sha256 = String(repeating: "0", count: 64)
        func file(_ url: URL, _ name: String, _ sha256: String, _ size: Int = 1)
            -> ModelStore.Source
        { .files("mine", [.init(url: url, name: name, sha256: sha256, size: size)]) }
        var sources: [(ModelStore.Source, String)] = [
            "a", "a/b/c", "/a/b", "../b", "a/", "a--b/c", "-a/b", "a/b..c", "a/b c", "ä/b", "a/.",
        ].map { (.repository($0), "expected owner/name") }
        sources += ["", "../x", "a b", "/x", "a\\b", "ü"].map {
            (.repository("local/small", revision: $0), "expected a branch, tag or commit")
        }
        sources += [
            "../x", "/etc/passwd", "a/../b", "", "a//b", "a/", "./a", ".hidden", "a\\b", "a\0",
            "a\nb", "c:d", String(repeating: "a", count: 300), "a/.source.json",
        ].map { (file(web, $0, sha256), "the unsafe file name") }
        sources += ["../x", "", ".", "a/b", "a b"].map {
            (.files($0, [.init(url: web, sha256: sha256, size: 1)]), "expected a name")
        }
        sources += [
            "file:///etc/passwd", "http://example.com/x", "ftp://127.0.0.1/x", "https://",
            "https://user:word@example.com/x", "x",
        ].compactMap { URL(string: $0) }.map {
            (
                file($0, "x", sha256),
                "expected an https address without a user name, or http on localhost"
            )
        }
        sources += [
            (file(web, "x", "abc"), "expected a SHA-256"),
            (file(web, "x", sha256, -1), "expected a size"),
            (file(web, "x", sha256, .max), "expected a size"), (.files("mine", []), "found none"),
            (
                .files(
                    "mine", ["a/b", "A"].map { .init(url: web, name: $0, sha256: sha256, size: 1) }),
                "the unsafe file name"
            ),
            (
                .files(
                    "mine", ["a", "A"].map { .init(url: web, name: $0, sha256: sha256, size: 1) }),
                "the unsafe file name"
            ),
            (
                .repository("local/small", tokenizer: .repository("../x")), "expected owner/name"
            ),
        ]
        for (source, part) in sources {
            let error = await failure { try await store.download(source) }
            guard case .invalidOption("source", let message)? = error else {
                Issue.record("\(source): \(error as Any)")
                continue
            }
            #expect(message.contains(part), "\(source): \(message)")
            #expect(!message.contains("word"))
            #expect(await store.availability(of: source) == .notDownloaded)
            await #expect(throws: OpenELMError.self) { try await store.delete(source) }
        }
        #expect(hub.hub.requests.isEmpty)
        #expect(!FileManager.default.fileExists(atPath: hub.directory.path))

        for (endpoint, token, name) in [
            (URL(string: "http://example.com"), nil, "endpoint"),
            (URL(filePath: "/tmp"), nil, "endpoint"), (hub.hub.url, "two words", "token"),
            (hub.hub.url, "a\r\nb", "token"), (hub.hub.url, "", "token"),
        ] {
            let store = ModelStore(directory: hub.directory, endpoint: endpoint, token: token)
            let error = await failure { try await store.download(small) }
            guard case .invalidOption(name, let message)? = error else {
                Issue.record("\(name): \(error as Any)")
                continue
            }
            #expect(!message.contains("words"))
        }
        let web2 = ModelStore(directory: hub.hub.url, endpoint: hub.hub.url)
        let error = await failure { try await web2.download(small) }
        #expect(error?.description.contains("directory: expected a file URL") == true)
    }

    @Test func foldersAreExcludedFromBackup() async throws {
        let hub = try await TestHub.small()
        try await hub.store().download(small)
        #if canImport(Darwin)
            let values = try hub.directory.resourceValues(forKeys: [.isExcludedFromBackupKey])
            #expect(values.isExcludedFromBackup == true)
        #endif
    }
}
