import Foundation

/// The package's pause in the background, and background tasks, in which work continues.
final class BackgroundPause: @unchecked Sendable {
    /// The pause of the process.
    static let shared = BackgroundPause(
        pause: { _ = try? Memory.pause() }, resume: { try? Memory.resume() })

    private let lock = NSLock()
    private let pause: @Sendable () -> Void
    private let resume: @Sendable () -> Void
    private var isInBackground = false
    private var tasks = 0
    private var isPaused = false

    init(pause: @escaping @Sendable () -> Void, resume: @escaping @Sendable () -> Void) {
        self.pause = pause
        self.resume = resume
    }

    /// The app has left the foreground.
    func enterBackground() { change { $0.isInBackground = true } }

    /// The app returns to the foreground.
    func enterForeground() { change { $0.isInBackground = false } }

    /// A background task begins: work continues in the background.
    func beginTask() { change { $0.tasks += 1 } }

    /// A background task has ended.
    func endTask() { change { $0.tasks -= 1 } }

    /// The lock is held during both calls, so that a pause is never resumed before it begins.
    private func change(_ body: (BackgroundPause) -> Void) {
        lock.lock()
        defer { lock.unlock() }
        body(self)
        let pauses = isInBackground && tasks == 0
        guard pauses != isPaused else { return }
        isPaused = pauses
        if pauses { pause() } else { resume() }
    }
}
