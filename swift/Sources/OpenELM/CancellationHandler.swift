import Dispatch

/// Like Swift's function of this name, but runs `onCancel` on another thread.
///
/// Swift calls a cancellation handler with the lock of the task. If the handler waits for a lock of
/// its own, whose holder resumes the same task, both threads wait for ever.
func withCancellationHandler<T: Sendable>(
    _ operation: @Sendable () async throws -> T, onCancel: @escaping @Sendable () -> Void
) async rethrows -> T {
    try await withTaskCancellationHandler {
        try await operation()
    } onCancel: {
        DispatchQueue.global(qos: .userInitiated).async(execute: onCancel)
    }
}
