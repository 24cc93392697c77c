import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// A request that failed, and the use of another attempt.
struct DownloadFailure: Error {
    /// Use of another attempt.
    enum Retry: Equatable {
        case never
        /// Of use after a wait.
        case wait
        /// Of use after a wait, from the first byte.
        case fromStart
        /// Of use after the wait that the server requests.
        case after(Duration)
    }

    let error: OpenELMError
    let retry: Retry

    /// A connection that failed.
    static func network(_ title: String, _ problem: String, _ retry: Retry = .wait) -> Self {
        Self(error: .network(source: title, message: "\(title): \(problem)"), retry: retry)
    }

    /// An answer that cannot be used.
    static func content(_ title: String, _ problem: String) -> Self {
        Self(
            error: .invalidDownload(source: title, message: "\(title): \(problem)"),
            retry: .never)
    }

    /// The failure of `request` without an answer; `CancellationError` and errors of files are
    /// thrown.
    init(_ error: any Error, _ title: String, _ request: URLRequest) throws {
        switch error {
        case let failure as DownloadFailure: self = failure
        case is CancellationError: throw error
        case let error as OpenELMError: throw error
        default:
            let error = error as NSError
            guard error.domain == NSURLErrorDomain else { throw OpenELMError.from(error) }
            let host = WebAddress.shown(request.url)
            let problem = "\(host): \(error.localizedDescription) (\(error.code))"
            self.init(
                error: .network(source: title, message: "\(title): \(problem)"),
                retry: Self.isPermanent(error.code) ? .never : .wait)
        }
    }

    private init(error: OpenELMError, retry: Retry) {
        self.error = error
        self.retry = retry
    }

    /// Errors of addresses and certificates.
    private static func isPermanent(_ code: Int) -> Bool {
        let permanent: [URLError.Code] = [
            .badURL, .unsupportedURL, .appTransportSecurityRequiresSecureConnection,
            .serverCertificateHasBadDate, .serverCertificateUntrusted,
            .serverCertificateHasUnknownRoot, .serverCertificateNotYetValid,
            .clientCertificateRejected, .clientCertificateRequired, .userAuthenticationRequired,
        ]
        return permanent.contains { $0.rawValue == code }
    }
}

extension DownloadFailure {
    /// The failure of an answer with a status from 400. `title` is a repository, or a model and a
    /// file (`name: file`).
    init(_ answer: Answer, _ title: String, _ request: URLRequest, hub: HubClient) {
        let host = WebAddress.shown(request.url)
        let isHub = WebAddress.origin(request.url) == WebAddress.origin(hub.endpoint)
        let isElsewhere = WebAddress.origin(answer.url) != WebAddress.origin(request.url)
        let code = answer.header("X-Error-Code") ?? ""
        let detail = answer.header("X-Error-Message") ?? "no reason given"
        let status = answer.status
        let hasToken = isHub && hub.token != nil
        switch status {
        case 416:
            let problem = "\(host): the range of the file does not exist (416)"
            self = Self.network(title, problem, .fromStart)
        case ..<429 where answer.url != nil && isElsewhere:
            // The signed address has expired: the next redirect has a new one.
            self = Self.network(title, "status \(status) of the host with the file")
        case 401 where detail.contains("Invalid credentials"):
            self = Self.access(title, "\(host) refuses the token")
        case 401 where code == "GatedRepo", 403 where code == "GatedRepo":
            let problem =
                hasToken
                ? "gated, and the token's account has no access; accept the license at"
                : "gated, and the store has no token; accept the license and make a token at"
            self = Self.access(title, "\(problem) \(host)/\(Self.repository(title))")
        case 404 where code == "RevisionNotFound":
            self = Self.notFound(title, "no such revision at \(host)")
        case 404 where code == "EntryNotFound" || !isHub:
            self = Self.notFound(title, "no such file at \(host) (404)")
        case 401 where isHub, 404:
            let problem =
                hasToken
                ? "or the token has no access to it"
                : "or it is private and the store has no token"
            self = Self.notFound(title, "no such repository at \(host), \(problem) (\(status))")
        case 401, 403: self = Self.access(title, "\(host) refuses access (\(status)): \(detail)")
        case 429:
            let seconds = answer.header("Retry-After").flatMap(Int.init)
            let advice = isHub && !hasToken ? "; a token has a higher limit" : ""
            let wait = seconds.flatMap { $0 < 0 ? nil : Duration.seconds(min($0, 1 << 30)) }
            self = Self.network(
                title, "\(host): too many requests (429)\(advice)", wait.map(Retry.after) ?? .wait)
        case 408, 500...: self = Self.network(title, "status \(status) of \(host)")
        default: self = Self.content(title, "status \(status) of \(host): \(detail)")
        }
    }

    private static func access(_ title: String, _ problem: String) -> Self {
        Self(error: .access(source: title, message: "\(title): \(problem)"), retry: .never)
    }

    private static func notFound(_ title: String, _ problem: String) -> Self {
        Self(error: .notFound(source: title, message: "\(title): \(problem)"), retry: .never)
    }

    private static func repository(_ title: String) -> Substring {
        title.prefix { $0 != ":" && $0 != "@" }
    }
}
