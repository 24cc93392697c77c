import Foundation
import Testing

@testable import OpenELM

/// A Hub on two ports of this machine: large files are on the other one.
final class TestHub: @unchecked Sendable {
    static let commit = "0123456789abcdef0123456789abcdef01234567"

    struct File: Sendable {
        var data: Data
        /// The SHA-256 of a large file.
        var sha256: String?
    }

    /// Contents and faults.
    struct State: Sendable {
        /// Files by repository and name.
        var repositories: [String: [String: File]] = [:]
        var commit = TestHub.commit
        /// A token that is required.
        var token: String?
        /// Answers of the Hub before all others.
        var answers: [TestServer.Response] = []
        /// Places at which the next bodies of large files end.
        var cuts: [Int] = []
        /// The last of `cuts` leaves its connection open.
        var holds = false
        /// The number of next large bodies with a wrong byte.
        var corrupt = 0
        var ignoresRange = false
        var hasLength = true
        /// The address that large files are redirected to.
        var redirect: String?
        /// A version in the ETags of large files.
        var version = 1
    }

    let hub = TestServer()
    let cdn = TestServer()
    let folder: Folder
    private let lock = NSLock()
    private var state = State()

    init() throws {
        folder = try Folder()
        hub.handle { [weak self] in self?.answer($0) ?? .init(status: 500) }
        cdn.handle { [weak self] in self?.blob($0) ?? .init(status: 500) }
    }

    deinit {
        hub.end()
        cdn.end()
    }

    /// A Hub with the model `local/small` of a few hundred kilobytes.
    static func small() async throws -> TestHub {
        let hub = try TestHub()
        try await hub.add(
            "local/small",
            [
                "config.json": (Data("{}".utf8), false), "README.md": (Data("-".utf8), false),
                "tokenizer.json": (Data("[1]".utf8), false), "model.safetensors": (weights, true),
                "onnx/config.json": (Data("{}".utf8), false),
                ".gitattributes": (Data("-".utf8), false),
            ])
        return hub
    }

    static let weights = Data((0..<600_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) })

    func change(_ body: (inout State) -> Void) { lock.withLock { body(&state) } }

    func add(_ repository: String, _ files: [String: (Data, Bool)]) async throws {
        for (name, (data, isLarge)) in files {
            let sha256 = isLarge ? try await sha256(data) : nil
            change {
                $0.repositories[repository, default: [:]][name] = .init(data: data, sha256: sha256)
            }
        }
    }

    func sha256(_ data: Data) async throws -> String {
        let file = folder.url.appending(path: UUID().uuidString)
        try data.write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        return try await fileDigest(file)
    }

    var directory: URL { folder.url.appending(path: "models") }

    /// A new store, as after a launch.
    func store(
        token: String? = nil, transport: (any Transport)? = nil, timeout: Double = 30,
        wait: @escaping @Sendable (Duration) async throws -> Void = { _ in },
        freeSpace: @escaping @Sendable (URL) -> Int? = systemFreeSpace
    ) -> ModelStore {
        ModelStore(
            directory: directory, endpoint: hub.url, token: token,
            transport: transport ?? DataTransport(timeout: timeout), timeout: timeout, wait: wait,
            freeSpace: freeSpace)
    }

    private func answer(_ request: TestServer.Request) -> TestServer.Response {
        lock.withLock {
            if !state.answers.isEmpty { return state.answers.removeFirst() }
            if let token = state.token, request.headers["authorization"] != "Bearer \(token)" {
                return .init(status: 401, headers: ["X-Error-Code": "GatedRepo"])
            }
            let words = request.path.split(separator: "/").map(String.init)
            if words.count == 6, words[1] == "models" {
                return description("\(words[2])/\(words[3])", revision: words[5])
            }
            guard words.count >= 5, words[2] == "resolve", words[3] == state.commit,
                let files = state.repositories["\(words[0])/\(words[1])"],
                let file = files[words.dropFirst(4).joined(separator: "/")]
            else { return .init(status: 404, headers: ["X-Error-Code": "EntryNotFound"]) }
            guard let sha256 = file.sha256 else {
                return .file(file.data, etag: "\"\(file.data.count)\"", for: request)
            }
            let address = state.redirect ?? "\(cdn.url.absoluteString)/\(sha256)"
            return .init(status: 302, headers: ["Location": address])
        }
    }

    private func description(_ name: String, revision: String) -> TestServer.Response {
        guard let files = state.repositories[name] else {
            return .init(status: 401, headers: ["X-Error-Code": "RepoNotFound"])
        }
        guard revision == "main" || revision == state.commit else {
            return .init(status: 404, headers: ["X-Error-Code": "RevisionNotFound"])
        }
        let siblings = files.map { name, file in
            var sibling: [String: Any] = [
                "rfilename": name, "size": file.data.count, "blobId": "\(file.data.hashValue)",
            ]
            if let sha256 = file.sha256 {
                sibling["lfs"] = ["sha256": sha256, "size": file.data.count, "pointerSize": 134]
            }
            return sibling
        }
        let json: [String: Any] = ["sha": state.commit, "siblings": siblings, "private": false]
        return .init(body: (try? JSONSerialization.data(withJSONObject: json)) ?? Data())
    }

    private func blob(_ request: TestServer.Request) -> TestServer.Response {
        lock.withLock {
            let sha256 = String(request.path.dropFirst())
            let files = state.repositories.values.flatMap(\.values)
            guard var data = files.first(where: { $0.sha256 == sha256 })?.data else {
                return .init(status: 404)
            }
            if state.corrupt > 0 {
                state.corrupt -= 1
                data[1000] ^= 1
            }
            var response = TestServer.Response.file(
                data, etag: "\"\(sha256)-\(state.version)\"", for: request,
                ignoresRange: state.ignoresRange)
            response.hasLength = state.hasLength
            if !state.cuts.isEmpty {
                response.cut = state.cuts.removeFirst()
                response.holds = state.holds && state.cuts.isEmpty
            }
            return response
        }
    }
}

/// Values of concurrent callbacks, in order.
final class Recorded<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var list: [Value] = []

    var values: [Value] { lock.withLock { list } }

    func append(_ value: Value) { lock.withLock { list.append(value) } }
}

/// Waits until `condition` holds; false after half a minute.
func eventually(_ condition: () async throws -> Bool) async rethrows -> Bool {
    for _ in 0..<6000 {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return false
}

/// The error of `body`.
func failure(_ body: () async throws -> Void) async -> OpenELMError? {
    do {
        try await body()
        return nil
    } catch { return error as? OpenELMError }
}

/// Checks the model `local/small`.
func expectComplete(_ hub: TestHub, _ folder: URL) throws {
    let file = folder.appending(path: "model.safetensors")
    #expect(try Data(contentsOf: file) == TestHub.weights)
    #expect(try Data(contentsOf: folder.appending(path: "config.json")) == Data("{}".utf8))
    #expect(folder.lastPathComponent == "models--local--small")
}

/// Checks that the store has no model.
func expectNothing(_ hub: TestHub) async {
    #expect(await hub.store().models.isEmpty)
    if case .available = await hub.store().availability(of: .repository("local/small")) {
        Issue.record("the model is available")
    }
}

/// The case of an error.
func caseName(_ error: OpenELMError?) -> String? {
    switch error {
    case .network?: "network"
    case .access?: "access"
    case .notFound?: "notFound"
    case .invalidDownload?: "invalidDownload"
    case .insufficientSpace?: "insufficientSpace"
    case nil: nil
    default: "another case"
    }
}
