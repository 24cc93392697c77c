import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// A transport of download tasks, which a background session of an Apple system requires: the
/// system writes the body to a file of its own, also while the app is suspended or not running.
/// An interrupted task leaves data of the system that continue it.
final class DownloadTaskTransport: Transport {
    private let session: URLSession
    private let downloads = Downloads()
    /// For short answers, and for redirects: a background session follows redirects by itself.
    private let foreground = DataTransport()

    init(configuration: URLSessionConfiguration) {
        session = URLSession(
            configuration: configuration, delegate: downloads, delegateQueue: nil)
    }

    deinit { session.finishTasksAndInvalidate() }

    func send(_ request: URLRequest, to sink: any AnswerSink) async throws -> Answer {
        try await foreground.send(request, to: sink)
    }

    func download(_ request: URLRequest, to part: PartialFile) async throws -> Answer {
        try Task.checkCancellation()
        let download = Download(part)
        // First, so that no end of a task of an earlier launch is missed.
        downloads[part.url.path] = download
        defer { downloads[part.url.path] = nil }
        let running = await session.tasks().first {
            TaskPart($0.taskDescription)?.url.path == part.url.path
        }
        let task: URLSessionTask
        if let running {
            task = running
        } else {
            try part.refresh()
            if part.isComplete { return Answer(status: 200) }
            task = try await newTask(request, part)
            task.taskDescription = TaskPart(part).description
        }
        return try await withCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                download.wait(continuation)
                task.resume()
            }
        } onCancel: {
            guard let task = task as? URLSessionDownloadTask else { return }
            task.cancel(byProducingResumeData: { data in
                download.finish(.failure(CancellationError()), resumeData: data)
            })
        }
    }

    private func newTask(_ request: URLRequest, _ part: PartialFile) async throws -> URLSessionTask
    {
        if let data = part.resumeData {
            part.resumeData = nil
            return session.downloadTask(withResumeData: data)
        }
        var request = request
        // The token would follow a redirect.
        if request.value(forHTTPHeaderField: "Authorization") != nil,
            let target = try await foreground.redirect(of: request)
        {
            request.url = target
            request.setValue(nil, forHTTPHeaderField: "Authorization")
        }
        return session.downloadTask(with: request)
    }
}

/// The part that a task downloads, in the task's description, which the system keeps.
private struct TaskPart: Codable, CustomStringConvertible {
    /// Relative to the home folder, whose path may change between launches.
    let path: String
    let isInHome: Bool
    let size: Int
    /// The first byte of the request.
    let start: Int

    init(_ part: PartialFile) {
        let home = NSHomeDirectory() + "/"
        isInHome = part.url.path.hasPrefix(home)
        path = isInHome ? String(part.url.path.dropFirst(home.count)) : part.url.path
        size = part.size
        start = part.length
    }

    init?(_ description: String?) {
        guard let description,
            let found = try? JSONDecoder().decode(Self.self, from: Data(description.utf8))
        else { return nil }
        self = found
    }

    var url: URL { URL(filePath: isInHome ? NSHomeDirectory() + "/" + path : path) }

    var description: String {
        (try? JSONEncoder().encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
}

/// The delegate of the session. It keeps bodies also if no download waits for them, as after
/// another launch.
private final class Downloads: NSObject, URLSessionDownloadDelegate, @unchecked Sendable {
    private let lock = NSLock()
    private var downloads: [String: Download] = [:]

    subscript(path: String) -> Download? {
        get { lock.withLock { downloads[path] } }
        set { lock.withLock { downloads[path] = newValue } }
    }

    func urlSession(
        _ session: URLSession, downloadTask: URLSessionDownloadTask,
        didFinishDownloadingTo location: URL
    ) {
        guard let place = TaskPart(downloadTask.taskDescription),
            let response = downloadTask.response as? HTTPURLResponse
        else { return }
        let answer = Answer(response)
        if let download = self[place.url.path] {
            download.take(location, answer, from: place.start)
        } else if answer.isBody {
            let part = try? PartialFile(
                url: place.url, size: place.size, title: place.url.lastPathComponent)
            try? part?.take(location, from: place.start)
        }
    }

    func urlSession(
        _ session: URLSession, downloadTask: URLSessionDownloadTask, didWriteData: Int64,
        totalBytesWritten: Int64, totalBytesExpectedToWrite: Int64
    ) {
        guard let place = TaskPart(downloadTask.taskDescription) else { return }
        self[place.url.path]?.part.reportTransient(place.start, Int(clamping: totalBytesWritten))
    }

    func urlSession(
        _ session: URLSession, task: URLSessionTask, didCompleteWithError error: (any Error)?
    ) {
        guard let error, let place = TaskPart(task.taskDescription) else { return }
        let data = (error as NSError).userInfo["NSURLSessionDownloadTaskResumeData"] as? Data
        if let download = self[place.url.path] {
            download.finish(.failure(error), resumeData: data)
        } else if let data,
            let part = try? PartialFile(
                url: place.url, size: place.size, title: place.url.lastPathComponent)
        {
            part.resumeData = data
        }
    }
}

/// A download that waits for its task.
private final class Download: @unchecked Sendable {
    let part: PartialFile
    private let lock = NSLock()
    private var result: Result<Answer, any Error>?
    private var continuation: CheckedContinuation<Answer, any Error>?

    init(_ part: PartialFile) { self.part = part }

    func wait(_ continuation: CheckedContinuation<Answer, any Error>) {
        lock.withLock {
            if let result {
                continuation.resume(with: result)
            } else {
                self.continuation = continuation
            }
        }
    }

    /// Moves the body of a task into the part.
    func take(_ body: URL, _ answer: Answer, from start: Int) {
        lock.withLock {
            guard result == nil else { return }
            do {
                if answer.isBody { try part.take(body, from: start) }
                end(.success(answer))
            } catch { end(.failure(error)) }
        }
    }

    func finish(_ result: Result<Answer, any Error>, resumeData: Data?) {
        lock.withLock {
            guard self.result == nil else { return }
            if let resumeData { part.resumeData = resumeData }
            end(result)
        }
    }

    private func end(_ result: Result<Answer, any Error>) {
        self.result = result
        continuation?.resume(with: result)
        continuation = nil
    }
}

extension URLSession {
    fileprivate func tasks() async -> [URLSessionTask] {
        await withCheckedContinuation { continuation in
            getAllTasks { continuation.resume(returning: $0) }
        }
    }
}

/// The transport of stores: a background session where there is one. A process may have only one
/// session of an identifier.
func backgroundTransport() -> any Transport {
    #if canImport(Darwin)
        sharedBackground
    #else
        DataTransport()
    #endif
}

#if canImport(Darwin)
    private let sharedBackground = DownloadTaskTransport(
        configuration: {
            let name = ModelStore.backgroundIdentifier
            let configuration = URLSessionConfiguration.background(withIdentifier: name)
            configuration.sessionSendsLaunchEvents = true
            return configuration
        }())
#endif
