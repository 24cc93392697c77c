import Foundation

/// A download in progress and the callers that wait for it.
final class DownloadRun: @unchecked Sendable {
    let source: ModelStore.Source
    let report = DownloadReport()

    private enum Waiter {
        case entered
        case waiting(CheckedContinuation<URL, any Error>)
    }

    private let lock = NSLock()
    private var task: Task<Void, Never>?
    private var isCancelled = false
    private var result: Result<URL, any Error>?
    private var waiters: [UUID: Waiter] = [:]

    init(source: ModelStore.Source) { self.source = source }

    /// Starts `work`; `end` runs after it and before its callers continue.
    func start(
        _ work: @escaping @Sendable () async throws -> URL,
        end: @escaping @Sendable () async -> Void
    ) {
        lock.withLock {
            task = Task {
                let result: Result<URL, any Error>
                do { result = .success(try await work()) } catch {
                    result = .failure(OpenELMError.from(error))
                }
                await end()
                self.finish(result)
            }
        }
    }

    /// Adds a caller; `nil` if the download is being cancelled.
    func enter(_ observer: @escaping DownloadReport.Observer) -> UUID? {
        let id = UUID()
        let entered = lock.withLock {
            guard !isCancelled, result == nil else { return false }
            waiters[id] = .entered
            return true
        }
        guard entered else { return nil }
        report.add(id, observer)
        return id
    }

    /// Waits for the model's folder. If the caller's task is cancelled, the download continues for
    /// other callers; the last one stops it and waits until it has stopped.
    func wait(_ id: UUID) async throws -> URL {
        defer { report.remove(id) }
        return try await withCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                lock.withLock {
                    if let result {
                        continuation.resume(with: result)
                    } else if waiters[id] == nil {
                        continuation.resume(throwing: CancellationError())
                    } else {
                        waiters[id] = .waiting(continuation)
                    }
                }
            }
        } onCancel: {
            self.leave(id)
        }
    }

    /// Stops the download for all callers.
    func cancel() {
        lock.withLock {
            isCancelled = true
            task?.cancel()
        }
    }

    /// Waits until the download has ended.
    func end() async { await lock.withLock { task }?.value }

    private func leave(_ id: UUID) {
        lock.withLock {
            guard waiters[id] != nil, result == nil else { return }
            if waiters.count > 1 {
                if case .waiting(let continuation)? = waiters.removeValue(forKey: id) {
                    continuation.resume(throwing: CancellationError())
                }
            } else {
                isCancelled = true
                task?.cancel()
            }
        }
    }

    private func finish(_ result: Result<URL, any Error>) {
        lock.withLock {
            self.result = result
            for case .waiting(let continuation) in waiters.values {
                continuation.resume(with: result)
            }
            waiters = [:]
        }
    }
}
