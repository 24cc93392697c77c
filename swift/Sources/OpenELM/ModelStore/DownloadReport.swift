import Foundation

/// The progress of a download, for all its callers. It never decreases.
final class DownloadReport: @unchecked Sendable {
    typealias Observer = @Sendable (ModelStore.Progress) -> Void

    private let lock = NSLock()
    private var observers: [UUID: Observer] = [:]
    private var lengths: [String: Int] = [:]
    private var latest = ModelStore.Progress(completedBytes: 0, totalBytes: 0)

    var current: ModelStore.Progress { lock.withLock { latest } }

    // Observers run inside the lock, so that the numbers arrive in order.

    func add(_ id: UUID, _ observer: @escaping Observer) {
        lock.withLock {
            observers[id] = observer
            if latest.totalBytes > 0 { observer(latest) }
        }
    }

    func remove(_ id: UUID) { lock.withLock { observers[id] = nil } }

    func begin(_ plan: DownloadPlan, _ places: ModelPlaces) {
        lock.withLock {
            for file in plan.files { lengths[file.name] = places.completedBytes(of: file) }
            update(total: plan.totalBytes, step: 0)
        }
    }

    func set(_ name: String, _ length: Int) {
        lock.withLock {
            lengths[name] = length
            // A thousand steps are enough for a view.
            update(total: latest.totalBytes, step: latest.totalBytes / 1000)
        }
    }

    func finish(_ total: Int) {
        lock.withLock {
            latest = ModelStore.Progress(completedBytes: total, totalBytes: total)
            for observer in observers.values { observer(latest) }
        }
    }

    private func update(total: Int, step: Int) {
        let completed = min(lengths.values.reduce(0, +), total)
        guard total != latest.totalBytes || completed > latest.completedBytes + step else {
            return
        }
        latest = ModelStore.Progress(completedBytes: completed, totalBytes: total)
        for observer in observers.values { observer(latest) }
    }
}
