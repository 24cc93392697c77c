import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

#if canImport(Darwin)
    /// The type of completion handlers in Apple's declarations.
    typealias CompletionHandler<T> = @Sendable (T) -> Void
#else
    /// The type of completion handlers in FoundationNetworking's declarations.
    typealias CompletionHandler<T> = (T) -> Void
#endif

/// Sends requests. Redirects are followed; another origin gets no token.
protocol Transport: Sendable {
    /// Sends `request` and gives the body to `sink` as it arrives.
    func send(_ request: URLRequest, to sink: any AnswerSink) async throws -> Answer
    /// Sends `request` for the missing bytes of `part`, which then has them.
    func download(_ request: URLRequest, to part: PartialFile) async throws -> Answer
}

/// The first line and the headers of an answer.
struct Answer: Sendable {
    let status: Int
    /// The address after redirects.
    let url: URL?
    private let headers: [String: String]

    init(_ response: HTTPURLResponse) {
        status = response.statusCode
        url = response.url
        var headers: [String: String] = [:]
        for (name, value) in response.allHeaderFields {
            if let name = name as? String { headers[name.lowercased()] = value as? String }
        }
        self.headers = headers
    }

    /// An answer without headers, for a file that needs no request.
    init(status: Int) {
        self.status = status
        url = nil
        headers = [:]
    }

    /// True if the body is a file or a part of it.
    var isBody: Bool { status == 200 || status == 206 }

    func header(_ name: String) -> String? { headers[name.lowercased()] }
}

/// Receives the body of an answer. Calls do not overlap.
protocol AnswerSink: AnyObject, Sendable {
    func begin(_ answer: Answer) throws
    func receive(_ data: Data) throws
}

/// A body of limited size in memory.
final class MemorySink: AnswerSink, @unchecked Sendable {
    // Read after the last call.
    private(set) var data = Data()
    private let limit: Int
    private let title: String

    init(limit: Int, title: String) {
        self.limit = limit
        self.title = title
    }

    func begin(_ answer: Answer) throws { data = Data() }

    func receive(_ data: Data) throws {
        guard self.data.count + data.count <= limit else {
            throw DownloadFailure.content(title, "expected at most \(limit) bytes, found more")
        }
        self.data.append(data)
    }
}

/// A transport of data tasks: a part of a file is written as it arrives. Downloads stop with the
/// app and continue at the next launch.
final class DataTransport: Transport {
    private let session: URLSession
    private let exchanges = Exchanges()

    /// Creates a transport; a connection without any bytes for `timeout` seconds is lost.
    init(timeout: Double = 60) {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = timeout
        session = URLSession(
            configuration: configuration, delegate: exchanges, delegateQueue: nil)
    }

    // The session keeps its delegate until then.
    deinit { session.finishTasksAndInvalidate() }

    func send(_ request: URLRequest, to sink: any AnswerSink) async throws -> Answer {
        try await send(request, to: sink, stopsAtOtherOrigin: false)
    }

    func download(_ request: URLRequest, to part: PartialFile) async throws -> Answer {
        try await send(request, to: part)
    }

    /// The address of another origin that `request` is redirected to, which needs no token; `nil`
    /// if there is none.
    func redirect(of request: URLRequest) async throws -> URL? {
        var request = request
        request.httpMethod = "HEAD"
        let sink = MemorySink(limit: 1 << 20, title: WebAddress.shown(request.url))
        let answer = try await send(request, to: sink, stopsAtOtherOrigin: true)
        guard (300..<400).contains(answer.status), let to = answer.header("Location") else {
            return nil
        }
        return URL(string: to, relativeTo: answer.url)?.absoluteURL
    }

    private func send(
        _ request: URLRequest, to sink: any AnswerSink, stopsAtOtherOrigin: Bool
    ) async throws -> Answer {
        try Task.checkCancellation()
        let task = session.dataTask(with: request)
        let exchange = Exchange(
            request: request, sink: sink, stopsAtOtherOrigin: stopsAtOtherOrigin)
        exchanges[task] = exchange
        return try await withCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                exchange.wait(continuation)
                task.resume()
            }
        } onCancel: {
            exchange.finish(CancellationError())
        }
    }
}

/// The delegate of the session.
private final class Exchanges: NSObject, URLSessionDataDelegate, @unchecked Sendable {
    private let lock = NSLock()
    private var exchanges: [Int: Exchange] = [:]

    subscript(task: URLSessionTask) -> Exchange? {
        get { lock.withLock { exchanges[task.taskIdentifier] } }
        set { lock.withLock { exchanges[task.taskIdentifier] = newValue } }
    }

    func urlSession(
        _ session: URLSession, task: URLSessionTask,
        willPerformHTTPRedirection response: HTTPURLResponse, newRequest request: URLRequest,
        completionHandler: @escaping CompletionHandler<URLRequest?>
    ) {
        completionHandler(self[task]?.next(request, after: Answer(response)))
    }

    func urlSession(
        _ session: URLSession, dataTask: URLSessionDataTask, didReceive response: URLResponse,
        completionHandler: @escaping CompletionHandler<URLSession.ResponseDisposition>
    ) {
        if let response = response as? HTTPURLResponse { self[dataTask]?.begin(Answer(response)) }
        // A failed exchange is cancelled at its first data: FoundationNetworking traps if a task
        // is cancelled while one of these handlers is in progress.
        completionHandler(.allow)
    }

    func urlSession(_ session: URLSession, dataTask: URLSessionDataTask, didReceive data: Data) {
        guard let exchange = self[dataTask], exchange.receive(data) else {
            dataTask.cancel()
            return
        }
    }

    func urlSession(
        _ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?
    ) {
        self[task]?.finish(error)
        self[task] = nil
    }
}

/// A request and its answer so far.
private final class Exchange: @unchecked Sendable {
    private static let maximumRedirects = 10

    private let lock = NSLock()
    private let request: URLRequest
    private let sink: any AnswerSink
    private let stopsAtOtherOrigin: Bool
    private var redirects = 0
    private var answer: Answer?
    private var received = 0
    private var result: Result<Answer, any Error>?
    private var continuation: CheckedContinuation<Answer, any Error>?

    init(request: URLRequest, sink: any AnswerSink, stopsAtOtherOrigin: Bool) {
        self.request = request
        self.sink = sink
        self.stopsAtOtherOrigin = stopsAtOtherOrigin
    }

    func wait(_ continuation: CheckedContinuation<Answer, any Error>) {
        lock.withLock {
            if let result {
                continuation.resume(with: result)
            } else {
                self.continuation = continuation
            }
        }
    }

    /// The request to the target of a redirect; `nil` makes the redirect the answer.
    func next(_ next: URLRequest, after answer: Answer) -> URLRequest? {
        lock.withLock {
            guard result == nil else { return nil }
            redirects += 1
            let title = WebAddress.shown(request.url)
            guard let target = next.url, WebAddress.isAllowed(target),
                target.scheme?.lowercased() == "https" || answer.url?.scheme?.lowercased() == "http"
            else {
                let problem = "a redirect to an address that is not https; refused"
                end(.failure(DownloadFailure.content(title, problem)))
                return nil
            }
            guard redirects <= Self.maximumRedirects else {
                end(.failure(DownloadFailure.content(title, "too many redirects")))
                return nil
            }
            let isOther = WebAddress.origin(target) != WebAddress.origin(request.url)
            if isOther && stopsAtOtherOrigin { return nil }
            // The system may drop or keep headers.
            var next = URLRequest(url: target, timeoutInterval: request.timeoutInterval)
            next.httpMethod = request.httpMethod
            for (name, value) in request.allHTTPHeaderFields ?? [:]
            where !(isOther && name.lowercased() == "authorization") {
                next.setValue(value, forHTTPHeaderField: name)
            }
            return next
        }
    }

    func begin(_ answer: Answer) {
        lock.withLock {
            guard result == nil else { return }
            self.answer = answer
            received = 0
            do { try sink.begin(answer) } catch { end(.failure(error)) }
        }
    }

    /// False if the exchange has ended.
    func receive(_ data: Data) -> Bool {
        lock.withLock {
            guard result == nil else { return false }
            received += data.count
            do { try sink.receive(data) } catch { end(.failure(error)) }
            return result == nil
        }
    }

    func finish(_ error: (any Error)?) {
        lock.withLock {
            if let error { return end(.failure(error)) }
            guard let answer else { return end(.failure(URLError(.badServerResponse))) }
            // FoundationNetworking reports some interrupted bodies as complete.
            let announced = answer.header("Content-Length").flatMap(Int.init)
            let isCut = request.httpMethod != "HEAD" && announced.map { received < $0 } ?? false
            end(isCut ? .failure(URLError(.networkConnectionLost)) : .success(answer))
        }
    }

    private func end(_ result: Result<Answer, any Error>) {
        guard self.result == nil else { return }
        self.result = result
        continuation?.resume(with: result)
        continuation = nil
    }
}
