import Foundation
import Testing

@testable import OpenELM

/// Tasks of the system, in which a fine-tuning continues in the background.
@Suite(.serialized, .timeLimit(.minutes(10))) @MainActor struct BackgroundTrainingTests {
    private static let background = TrainingConditions(isInBackground: true)

    @Test func trainsInTheBackgroundUntilTheEnd() async throws {
        let app = try await App()
        let task = app.task()
        let work = Work()
        app.change(to: Self.background)
        task.run(in: work)
        #expect(await work.result() == true)
        #expect(task.phase == .finished(.iterations))
        #expect(work.reports.last == [12, 12] && work.reports.contains([3, 12]))
        try await app.expectSameBytes()
        // There is nothing left to do in the next launch.
        let next = app.task()
        let again = Work()
        app.change(to: Self.background)
        next.run(in: again)
        #expect(await again.result() == true)
        try await app.expectSameBytes()
    }

    /// Each time of the system is a launch of its own.
    @Test(arguments: [false, true])
    func expiredTasksContinueInTheNextLaunch(ignoresTheBackground: Bool) async throws {
        let app = try await App()
        for step in [1, 4, 9] {
            let task = app.task()
            if ignoresTheBackground { task.pauseReasons = [] }
            let work = Work()
            task.onEvent = {
                if case .step(let one) = $0, one.iteration == step { work.expire() }
            }
            app.change(to: Self.background)
            task.run(in: work)
            #expect(await work.result() == false)
            #expect(task.phase == .paused([.background]))
            let saved = try await LanguageModel.resumableFineTuning(at: app.target)
            #expect(saved?.iteration == task.iteration && task.iteration >= step)
        }
        let task = app.task()
        let work = Work()
        app.change(to: Self.background)
        task.run(in: work)
        #expect(await work.result() == true)
        try await app.expectSameBytes()
    }

    @Test func expiresBeforeTheFirstStep() async throws {
        let app = try await App()
        let task = app.task()
        let work = Work()
        task.run(in: work)
        work.expire()
        // Also while the conditions are not known.
        #expect(await work.result() == false)
        app.change(to: Self.background)
        await task.wait { task.phase == .paused([.background]) }
        #expect(task.iteration == 0)
    }

    @Test func continuesInTheForegroundAfterTheTask() async throws {
        let app = try await App()
        let task = app.task()
        let work = Work()
        task.onEvent = {
            if case .step(let one) = $0, one.iteration == 2 { app.change(to: TrainingConditions()) }
            if case .step(let one) = $0, one.iteration == 5 { work.expire() }
        }
        app.change(to: Self.background)
        task.run(in: work)
        #expect(await work.result() == false)
        #expect(task.phase == .running || task.phase == .finished(.iterations))
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        try await app.expectSameBytes()
    }

    @Test func tasksEndWhenTheRunPauses() async throws {
        let app = try await App()
        let task = app.task()
        let work = Work()
        var conditions = Self.background
        task.onEvent = {
            guard case .step(let one) = $0, one.iteration == 2 else { return }
            conditions.thermalState = .serious
            app.change(to: conditions)
        }
        app.change(to: conditions)
        task.run(in: work)
        #expect(await work.result() == false)
        #expect(task.phase == .paused([.thermalState, .background]))
        await task.stop()

        // iOS refuses the GPU.
        app.load = { throw OpenELMError.device(message: "Insufficient Permission") }
        let refused = app.task(in: "other")
        let other = Work()
        app.change(to: Self.background)
        refused.run(in: other)
        #expect(await other.result() == false)
        #expect(refused.phase == .paused([.background]))
        // Another error is a failure.
        app.load = { throw OpenELMError.unloaded }
        let failing = app.task(in: "other")
        let third = Work()
        app.change(to: Self.background)
        failing.run(in: third)
        #expect(await third.result() == false)
        #expect(failing.phase == .failed(.unloaded))
    }

    @Test func stoppedRunEndsItsTask() async throws {
        let app = try await App()
        let task = app.task()
        let work = Work()
        app.change(to: Self.background)
        task.run(in: work)
        await task.wait { task.iteration >= 2 }
        await task.stop()
        #expect(await work.result() == false)
        #expect(task.phase == .idle)
    }
}

/// The package's pause in the background.
struct BackgroundPauseTests {
    @Test func pausesInTheBackgroundWithoutTasks() {
        let calls = Calls()
        let pause = BackgroundPause(
            pause: { calls.append("pause") }, resume: { calls.append("resume") })
        func expect(
            _ expected: [String], sourceLocation: SourceLocation = #_sourceLocation,
            _ body: () -> Void
        ) {
            body()
            #expect(calls.take() == expected, sourceLocation: sourceLocation)
        }
        expect(["pause"]) { pause.enterBackground() }
        expect([]) { pause.enterBackground() }
        expect(["resume"]) { pause.enterForeground() }
        expect([]) { pause.enterForeground() }
        // A task that begins in the background.
        expect(["pause"]) { pause.enterBackground() }
        expect(["resume"]) { pause.beginTask() }
        expect([]) { pause.beginTask() }
        expect([]) { pause.endTask() }
        expect(["pause"]) { pause.endTask() }
        expect(["resume"]) { pause.enterForeground() }
        // A task that begins in the foreground and ends there or in the background.
        expect([]) { pause.beginTask() }
        expect([]) { pause.enterBackground() }
        expect([]) { pause.enterForeground() }
        expect([]) { pause.endTask() }
        expect([]) { pause.beginTask() }
        expect([]) { pause.enterBackground() }
        expect(["pause"]) { pause.endTask() }
        expect(["resume"]) { pause.enterForeground() }
    }
}

/// Names of calls, from any thread.
private final class Calls: @unchecked Sendable {
    private let lock = NSLock()
    private var names: [String] = []

    func append(_ name: String) { lock.withLock { names.append(name) } }
    func take() -> [String] {
        lock.withLock {
            defer { names = [] }
            return names
        }
    }
}

/// A task of the system.
final class Work: BackgroundWork, @unchecked Sendable {
    private let lock = NSLock()
    private var handler: (() -> Void)?
    private var reported: [[Int]] = []
    private let results: AsyncStream<Bool>
    private let complete: AsyncStream<Bool>.Continuation

    init() { (results, complete) = AsyncStream.makeStream(of: Bool.self) }

    var expirationHandler: (() -> Void)? {
        get { lock.withLock { handler } }
        set { lock.withLock { handler = newValue } }
    }
    var reports: [[Int]] { lock.withLock { reported } }

    func report(completed: Int, of total: Int) {
        lock.withLock { reported.append([completed, total]) }
    }

    func setTaskCompleted(success: Bool) { complete.yield(success) }

    /// Expires on another thread, as the system's task does.
    func expire() { Thread.detachNewThread { self.expirationHandler?() } }

    /// Waits for the completion.
    func result() async -> Bool? {
        for await result in results { return result }
        return nil
    }
}
