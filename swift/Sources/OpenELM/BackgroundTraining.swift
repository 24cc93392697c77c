import Foundation

#if canImport(BackgroundTasks) && canImport(UIKit)
    import BackgroundTasks
#endif

/// A task of the system in which the app may run in the background: `BGTask`, or a test's.
protocol BackgroundWork: AnyObject {
    var expirationHandler: (() -> Void)? { get set }
    func setTaskCompleted(success: Bool)
    /// Shows `completed` of `total` steps, if the system shows progress.
    func report(completed: Int, of total: Int)
}

/// Passes a task of the system, which only one thread uses at a time, to the main actor.
private struct Passed: @unchecked Sendable {
    let work: any BackgroundWork
}

extension FinetuneTask {
    /// Runs in the time that `work` gives: until the run ends, pauses for another reason than the
    /// background, or `work` expires. Then the run is saved and `work` is complete.
    nonisolated func run(in work: any BackgroundWork) {
        let (expired, expire) = AsyncStream.makeStream(of: Void.self)
        work.expirationHandler = { expire.finish() }
        let passed = Passed(work: work)
        Task { @MainActor in
            BackgroundPause.shared.beginTask()
            let isComplete = await self.runInBackground(expired) { completed, total in
                passed.work.report(completed: completed, of: total)
            }
            BackgroundPause.shared.endTask()
            passed.work.setTaskCompleted(success: isComplete)
        }
    }
}

#if canImport(BackgroundTasks) && canImport(UIKit)
    extension BGTask: BackgroundWork {
        func report(completed: Int, of total: Int) {
            // A task that the system shows, BGContinuedProcessingTask.
            guard let progress = (self as? any ProgressReporting)?.progress else { return }
            progress.totalUnitCount = Int64(total)
            progress.completedUnitCount = Int64(completed)
        }
    }

    extension FinetuneTask {
        /// Runs in the time that the system gives to `task`, in the background too. The run is
        /// saved and `task` is complete when the run ends, pauses or `task` expires. Call this in
        /// the handler of `BGTaskScheduler`.
        public nonisolated func run(in task: BGTask) { run(in: task as any BackgroundWork) }
    }
#endif
