import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Requests to the Hub and to other servers, with several attempts. The token is sent to the Hub
/// only.
struct HubClient: Sendable {
    /// Attempts of a request, without progress between them.
    static let attempts = 5
    /// Longest wait that a server may request.
    static let longestWait = Duration.seconds(300)
    /// Largest description of a repository, in bytes.
    private static let maximumDescription = 64 << 20

    let endpoint: URL
    let token: String?
    let transport: any Transport
    /// Waits before another attempt.
    let wait: @Sendable (Duration) async throws -> Void
    /// Seconds without any bytes after which a connection counts as lost.
    let timeout: Double

    /// A request; `identity` keeps `Content-Length` the size of the file.
    func request(_ url: URL, headers: [String: String] = [:]) -> URLRequest {
        var request = URLRequest(
            url: url, cachePolicy: .reloadIgnoringLocalCacheData, timeoutInterval: timeout)
        request.setValue("identity", forHTTPHeaderField: "Accept-Encoding")
        for (name, value) in headers { request.setValue(value, forHTTPHeaderField: name) }
        if let token, WebAddress.origin(url) == WebAddress.origin(endpoint) {
            request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
        }
        return request
    }

    /// Waits before attempt number `attempt + 1`, or throws the failure's error.
    func wait(after failure: DownloadFailure, attempt: Int) async throws {
        let wait: Duration
        switch failure.retry {
        case .never: throw failure.error
        case .after(let requested):
            guard requested <= Self.longestWait else { throw failure.error }
            wait = requested
        case .wait, .fromStart: wait = .milliseconds(500 << min(max(attempt - 1, 0), 8))
        }
        guard attempt < Self.attempts else { throw failure.error }
        try await self.wait(wait)
    }

    /// The files of `source`, all with sizes. Requests the description of repositories.
    func plan(for source: ModelStore.Source) async throws -> DownloadPlan {
        let files: [DownloadPlan.File]
        switch source {
        case .files(_, let list): files = list.map(DownloadPlan.File.init)
        case .repository(let name, let revision, let tokenizer):
            let all = try await self.files(of: name, revision)
            let title = hubTitle(name, revision)
            let model = try RepositoryFiles.chosen(from: all, title: title)
            switch tokenizer {
            case .included:
                try RepositoryFiles.checkTokenizer(of: model, title: title)
                files = model
            case .separate: files = model
            case .files(let list):
                files = RepositoryFiles.replacingTokenizer(
                    of: model, by: list.map(DownloadPlan.File.init))
            case .repository(let name, let revision):
                let all = try await self.files(of: name, revision)
                let tokenizer = try RepositoryFiles.tokenizer(
                    from: all, title: hubTitle(name, revision))
                files = RepositoryFiles.replacingTokenizer(of: model, by: tokenizer)
            }
        }
        if let name = FileName.firstUnsafe(files.map(\.name)) {
            throw DownloadFailure.content(
                source.title, "the unsafe file name \(name.debugDescription)"
            ).error
        }
        // The small ones first: an interruption leaves more files complete.
        return DownloadPlan(source: source, files: files.sorted { $0.size < $1.size })
    }

    /// All files of a repository, at the commit of `revision`.
    private func files(of name: String, _ revision: String) async throws -> [DownloadPlan.File] {
        struct Description: Decodable {
            struct Sibling: Decodable {
                struct Large: Decodable {
                    let sha256: String
                    let size: Int
                }
                let rfilename: String
                let size: Int?
                let blobId: String?
                let lfs: Large?
            }
            let sha: String
            let siblings: [Sibling]?
        }
        let title = hubTitle(name, revision)
        func wrong(_ problem: String) -> OpenELMError {
            DownloadFailure.content(title, problem).error
        }
        let path = "api/models/\(name)/revision/\(WebAddress.encoded(revision))?blobs=true"
        let body = try await body(of: try address(path), title: title)
        guard let found = try? JSONDecoder().decode(Description.self, from: body) else {
            throw wrong("expected the description of a repository, found another answer")
        }
        guard isCommit(found.sha), !isCommit(revision) || found.sha == revision else {
            throw wrong("expected a commit, found \(found.sha.prefix(80).debugDescription)")
        }
        let siblings = found.siblings ?? []
        if let sibling = siblings.first(where: { !RepositoryFiles.isSafe($0.rfilename) }) {
            let name = sibling.rfilename.prefix(200).debugDescription
            throw wrong("the unsafe file name \(name); nothing is downloaded")
        }
        return try siblings.compactMap { sibling in
            guard RepositoryFiles.isChoice(sibling.rfilename) else { return nil }
            guard let size = sibling.lfs?.size ?? sibling.size,
                (0...DownloadPlan.maximumSize).contains(size)
            else { throw wrong("expected the size of \(sibling.rfilename), found none") }
            let file = WebAddress.encoded(sibling.rfilename, isPath: true)
            return DownloadPlan.File(
                name: sibling.rfilename, url: try address("\(name)/resolve/\(found.sha)/\(file)"),
                size: size, sha256: sibling.lfs?.sha256.lowercased(), blob: sibling.blobId)
        }
    }

    /// The body of a short answer.
    private func body(of url: URL, title: String) async throws -> Data {
        let request = request(url)
        var attempt = 0
        while true {
            attempt += 1
            let sink = MemorySink(limit: Self.maximumDescription, title: title)
            let failure: DownloadFailure
            do {
                let answer = try await transport.send(request, to: sink)
                if answer.status == 200 { return sink.data }
                failure = DownloadFailure(answer, title, request, hub: self)
            } catch { failure = try DownloadFailure(error, title, request) }
            try await wait(after: failure, attempt: attempt)
        }
    }

    private func address(_ path: String) throws -> URL {
        var base = endpoint.absoluteString
        while base.hasSuffix("/") { base.removeLast() }
        guard let url = URL(string: "\(base)/\(path)") else {
            throw OpenELMError.invalidOption(
                name: "endpoint", message: "endpoint: expected an address, found \(base)")
        }
        return url
    }

    /// True for 40 hexadecimal digits in lower case.
    private func isCommit(_ text: String) -> Bool {
        text.utf8.count == 40 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }
}
