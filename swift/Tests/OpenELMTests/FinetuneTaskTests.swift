import Foundation
import Testing

@testable import OpenELM

@Suite(.serialized, .timeLimit(.minutes(10))) @MainActor struct FinetuneTaskTests {
    nonisolated static let adapter = "adapters.safetensors"
    nonisolated static let hot = TrainingConditions(thermalState: .serious)
    nonisolated static let lowPower = TrainingConditions(isLowPowerModeEnabled: true)
    nonisolated static let background = TrainingConditions(isInBackground: true)

    @Test func runsToTheEndAndShowsItsProgress() async throws {
        let app = try await App()
        let task = app.task()
        #expect(task.phase == .idle && task.iteration == 0 && task.iterations == 12)
        // The conditions are not known yet.
        task.start()
        #expect(task.phase == .idle)
        app.change(to: TrainingConditions(thermalState: .fair))
        await task.wait { task.phase == .running }
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        #expect(task.iteration == 12 && task.fractionCompleted == 1)
        #expect(task.losses.map(\.iteration) == Array(1...12))
        #expect(task.validationLosses.map(\.iteration) == [0, 6, 12])
        #expect(task.best?.loss == task.validationLosses.map(\.loss).min())
        #expect(task.tokensPerSecond ?? 0 > 0 && task.step?.iteration == 12)
        try await app.expectSameBytes()

        // A later launch shows the run, and has nothing left to train.
        let later = app.task()
        try await later.refresh()
        #expect(later.iteration == 12 && later.phase == .idle && later.best == task.best)
        #expect(later.validationLosses == task.validationLosses)
        for (one, other) in zip(later.losses, task.losses) {
            #expect(one.iteration == other.iteration && abs(one.loss - other.loss) < 1e-5)
        }
        app.change(to: TrainingConditions())
        later.start()
        await later.finish()
        #expect(later.phase == .finished(.iterations) && later.step == nil)
        try await app.expectSameBytes()
    }

    @Test(
        arguments: [
            (hot, .thermalState), (TrainingConditions(thermalState: .critical), .thermalState),
            (lowPower, .lowPowerMode), (background, .background),
        ] as [(TrainingConditions, PauseReason)])
    func pausesWhileAConditionLasts(condition: TrainingConditions, reason: PauseReason)
        async throws
    {
        let app = try await App()
        let task = app.task()
        task.onEvent = {
            if case .step(let step) = $0, step.iteration == 3 { app.change(to: condition) }
        }
        app.change(to: TrainingConditions())
        task.start()
        await task.wait { task.phase == .paused([reason]) }
        // A paused run is on disk, with all of its steps.
        let saved = try await LanguageModel.resumableFineTuning(at: app.target)
        #expect(saved?.iteration == task.iteration && task.iteration >= 3)
        #expect(task.iteration < 12)
        app.change(to: TrainingConditions())
        await task.wait { task.phase == .running }
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        #expect(task.losses.map(\.iteration) == Array(1...12))
        try await app.expectSameBytes()
    }

    @Test func chosenConditionsDoNotPause() async throws {
        let app = try await App()
        let task = app.task()
        task.pauseReasons = [.thermalState]
        app.change(to: TrainingConditions(isLowPowerModeEnabled: true, isInBackground: true))
        task.start()
        await task.wait { task.phase != .idle }
        #expect(task.phase == .running)
        // The user's own pause always counts.
        task.pause()
        await task.wait { task.phase == .paused([.user]) }
        task.resume()
        task.pauseReasons = [.lowPowerMode]
        await task.wait { task.phase == .paused([.lowPowerMode]) }
        task.pauseReasons = []
        await task.finish()
        #expect(task.phase == .finished(.iterations))
    }

    @Test func overlappingConditionsEndOneByOne() async throws {
        let app = try await App()
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.wait { task.iteration >= 2 }
        var conditions = TrainingConditions(thermalState: .critical, isLowPowerModeEnabled: true)
        app.change(to: conditions)
        await task.wait { task.phase == .paused([.thermalState, .lowPowerMode]) }
        conditions.isInBackground = true
        app.change(to: conditions)
        await task.wait { task.phase == .paused([.thermalState, .lowPowerMode, .background]) }
        task.pause()
        conditions.thermalState = .fair
        app.change(to: conditions)
        await task.wait { task.phase == .paused([.lowPowerMode, .background, .user]) }
        conditions.isLowPowerModeEnabled = false
        app.change(to: conditions)
        await task.wait { task.phase == .paused([.background, .user]) }
        task.resume()
        #expect(task.phase == .paused([.background]))
        conditions.isInBackground = false
        app.change(to: conditions)
        await task.wait { task.phase == .running }
        await task.finish()
        try await app.expectSameBytes()
    }

    @Test func flappingConditionsEndWithTheSameBytes() async throws {
        let app = try await App()
        let task = app.task()
        var events = 0
        var random = SystemRandomNumberGenerator()
        task.onEvent = { _ in
            events += 1
            app.change(to: [Self.hot, Self.lowPower, Self.background][events % 3])
            // Sometimes ended before the run is saved, and sometimes before it is cancelled.
            if Bool.random(using: &random) { app.change(to: TrainingConditions()) }
        }
        app.change(to: TrainingConditions())
        task.start()
        while task.phase != .finished(.iterations) {
            await task.wait { if case .running = task.phase { false } else { true } }
            if case .paused = task.phase {
                let saved = try await LanguageModel.resumableFineTuning(at: app.target)
                #expect(saved?.iteration ?? 0 == task.iteration)
            }
            if case .failed(let error) = task.phase {
                Issue.record("\(error)")
                return
            }
            app.change(to: TrainingConditions())
            await Task.yield()
        }
        #expect(task.losses.map(\.iteration) == Array(1...12))
        try await app.expectSameBytes()
    }

    @Test func pauseBeforeTheFirstStepStartsNothing() async throws {
        let app = try await App()
        let task = app.task()
        app.change(to: Self.hot)
        task.start()
        await task.wait { task.phase == .paused([.thermalState]) }
        #expect(!FileManager.default.fileExists(atPath: app.target.path))
        #expect(task.iteration == 0)
        app.change(to: TrainingConditions())
        await task.wait { task.phase == .running }
        // While the model loads.
        task.pause()
        await task.wait { task.phase == .paused([.user]) }
        #expect(task.iteration == 0)
        task.resume()
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        try await app.expectSameBytes()
    }

    @Test func pauseDuringASaveAndResumptionDuringASave() async throws {
        let app = try await App()
        let task = app.task()
        // `saveEvery` is 5: a checkpoint, and a pause at its event.
        task.onEvent = { if case .saved(5) = $0 { task.pause() } }
        app.change(to: TrainingConditions())
        task.start()
        await task.wait { task.phase == .paused([.user]) }
        task.onEvent = nil
        let saved = try await LanguageModel.resumableFineTuning(at: app.target)
        #expect(saved?.iteration == task.iteration && task.iteration >= 5)
        task.resume()
        #expect(task.phase == .running)
        await task.wait { task.iteration > saved?.iteration ?? 12 }
        task.pause()
        #expect(task.phase == .pausing([.user]))
        task.resume()
        // The save is not interrupted.
        #expect(task.phase == .pausing([.user]))
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        try await app.expectSameBytes()
    }

    /// On iOS, if a step does not end before the package pauses in the background.
    @Test func runThatCannotSaveInTheBackgroundSavesAfterIt() async throws {
        let app = try await App()
        let task = app.task()
        task.onEvent = {
            guard case .step(let one) = $0, one.iteration == 3 else { return }
            #expect(throws: Never.self) { try Memory.pause() }
            app.change(to: Self.background)
        }
        app.change(to: TrainingConditions())
        task.start()
        await task.wait { task.phase == .pausing([.background]) }
        for _ in 0..<100 { await Task.yield() }
        #expect(task.phase == .pausing([.background]))
        try Memory.resume()
        app.change(to: TrainingConditions())
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        try await app.expectSameBytes()
    }

    @Test func stopSavesAndStartContinues() async throws {
        let app = try await App()
        let task = app.task()
        app.change(to: TrainingConditions())
        await task.stop()
        #expect(task.phase == .idle)
        task.start()
        await task.wait { task.iteration >= 2 }
        await task.stop()
        #expect(task.phase == .idle)
        let saved = try await LanguageModel.resumableFineTuning(at: app.target)
        #expect(saved?.iteration == task.iteration && task.iteration >= 2)
        task.start()
        await task.wait { task.phase == .running && task.iteration > saved?.iteration ?? 12 }
        // Stopped while paused, and while it is being saved.
        task.pause()
        await task.wait { task.phase == .paused([.user]) }
        await task.stop()
        #expect(task.phase == .idle)
        task.start()
        let before = task.iteration
        await task.wait { task.iteration > before }
        task.pause()
        async let stopped: Void = task.stop()
        await stopped
        #expect(task.phase == .idle)
        // Started again while it stops.
        task.start()
        async let stopping: Void = task.stop()
        await task.wait { task.phase != .running }
        task.start()
        await stopping
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        try await app.expectSameBytes()
    }

    @Test func releasedTaskSavesItsRunAndANewOneContinues() async throws {
        let app = try await App()
        for iteration in [1, 4, 9] {
            var task: FinetuneTask? = app.task()
            app.change(to: TrainingConditions())
            task?.start()
            if let task { await task.wait { task.iteration >= iteration } }
            weak var released = task
            task = nil
            while released != nil { await Task.yield() }
        }
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.finish()
        #expect(task.phase == .finished(.iterations))
        #expect(task.losses.map(\.iteration) == Array(1...12))
        try await app.expectSameBytes()
    }

    @Test func pausedTaskIsReleased() async throws {
        let app = try await App()
        var task: FinetuneTask? = app.task()
        app.change(to: Self.hot)
        task?.start()
        if let task { await task.wait { task.phase == .paused([.thermalState]) } }
        weak var released = task
        task = nil
        while released != nil { await Task.yield() }
    }

    @Test func heatEndsAfterTheCooldown() async throws {
        let app = try await App()
        let (sleeps, slept) = AsyncStream.makeStream(of: CheckedContinuation<Void, Never>.self)
        let task = app.task(cooldown: .seconds(60)) { duration in
            #expect(duration == .seconds(60))
            await withCheckedContinuation { slept.yield($0) }
        }
        var sleep = sleeps.makeAsyncIterator()
        app.change(to: Self.hot)
        task.start()
        await task.wait { task.phase == .paused([.thermalState]) }
        app.change(to: TrainingConditions(thermalState: .fair))
        let first = await sleep.next()
        #expect(task.phase == .paused([.thermalState]))
        // Hot again: the first cooldown has no effect.
        app.change(to: TrainingConditions(thermalState: .critical, isLowPowerModeEnabled: true))
        await task.wait { task.phase == .paused([.thermalState, .lowPowerMode]) }
        first?.resume()
        for _ in 0..<100 { await Task.yield() }
        #expect(task.phase == .paused([.thermalState, .lowPowerMode]))
        app.change(to: TrainingConditions())
        let second = await sleep.next()
        #expect(task.phase == .paused([.thermalState]))
        second?.resume()
        await task.wait { task.phase == .running }
        await task.stop()
    }

    @Test func errorsAreShownAndStartTriesAgain() async throws {
        let app = try await App()
        app.options.rank = 0
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.finish()
        guard case .failed(.invalidOption("rank", _)) = task.phase else {
            Issue.record("\(task.phase)")
            return
        }
        task.start()
        #expect(task.phase == .running)
        await task.finish()

        // An error of the app's own closure.
        struct Own: Error {}
        app.options.rank = 8
        app.load = { throw Own() }
        let other = app.task()
        app.change(to: TrainingConditions())
        other.start()
        await other.finish()
        guard case .failed(.unexpected) = other.phase else {
            Issue.record("\(other.phase)")
            return
        }
        app.load = { throw CancellationError() }
        let cancelled = app.task()
        app.change(to: TrainingConditions())
        cancelled.start()
        await cancelled.finish()
        #expect(cancelled.phase == .idle)
    }

    @Test func refusedGPUInTheBackgroundPauses() async throws {
        let app = try await App()
        let refused = OpenELMError.device(message: "Insufficient Permission")
        app.load = { throw refused }
        let task = app.task()
        task.pauseReasons = []
        app.change(to: Self.background)
        task.start()
        await task.wait { task.phase == .paused([.background]) }
        // Tried again in the foreground, where it is a failure.
        app.change(to: TrainingConditions())
        await task.finish()
        #expect(task.phase == .failed(refused))
    }

    @Test func savedRunKeepsItsOptionsUnderAnotherBudget() async throws {
        let app = try await App()
        // 100 bytes per row, half of it with gradient checkpointing.
        app.memory = { _, options in options.batchSize * (options.gradCheckpoint ? 50 : 100) }
        var small = app.options
        small.batchSize = 1
        small.gradAccumulationSteps = 2
        small.iters = 24
        small.stepsPerEval = 12
        small.saveEvery = 10
        small.valBatches = 50
        // Little memory, much, less, and too little.
        for (budget, checkpoints, iteration) in [
            (150, false, 5), (10_000, false, 9), (60, true, 13), (100, false, 24),
        ] {
            app.budget = .bytes(budget)
            let task = app.task()
            app.change(to: TrainingConditions())
            task.start()
            await task.wait {
                task.iteration >= iteration || task.phase != .running && task.phase != .idle
            }
            var expected = small
            expected.gradCheckpoint = checkpoints
            #expect(task.options == expected && task.iterations == 24)
            if iteration < 24 { await task.stop() } else { await task.finish() }
            app.budget = .bytes(49)
            let failing = app.task()
            app.change(to: TrainingConditions())
            try await failing.refresh()
            #expect(failing.iteration == task.iteration && failing.iterations == 24)
            failing.start()
            await failing.finish()
            guard case .failed(.device) = failing.phase else {
                Issue.record("\(failing.phase)")
                return
            }
        }
        app.options = small
        try await app.expectSameBytes()
    }

    @Test func availableMemoryIsTheBudget() async throws {
        let app = try await App()
        app.memory = { _, options in options.batchSize * 100 }
        app.budget = .automatic
        app.available = 200
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.wait { task.iteration >= 1 }
        #expect(task.options.batchSize == 1 && task.options.gradAccumulationSteps == 2)
        await task.stop()
        app.available = nil
        let other = app.task(in: "other")
        app.change(to: TrainingConditions())
        other.start()
        await other.wait { other.iteration >= 1 }
        #expect(other.options == app.options)
        await other.stop()
    }
}

/// An app with a model, data, and conditions that a test changes.
@MainActor final class App {
    let folder: Folder
    let data: URL
    let target: URL
    let model: LanguageModel
    var options: FinetuneOptions
    var budget = MemoryBudget.unlimited
    var available: Int?
    var memory: @Sendable (LanguageModel, FinetuneOptions) throws -> Int? = { _, _ in nil }
    var load: (@Sendable () async throws -> LanguageModel)?
    private var conditions: AsyncStream<TrainingConditions>.Continuation?

    init() async throws {
        folder = try Folder()
        data = try folder.rows()
        target = folder.url.appending(path: "adapter")
        model = try await LanguageModel(folder: tales)
        options = FinetuneOptions()
        options.iters = 12
        options.batchSize = 2
        options.learningRate = 3e-4
        options.stepsPerEval = 6
        options.saveEvery = 5
        options.seed = 3
    }

    /// A task of a new launch, with conditions of its own.
    func task(
        in name: String = "adapter", cooldown: Duration = .zero,
        sleep: @escaping @Sendable (Duration) async throws -> Void = { _ in }
    ) -> FinetuneTask {
        let (stream, continuation) = AsyncStream.makeStream(of: TrainingConditions.self)
        conditions = continuation
        let (model, available) = (self.model, self.available)
        var launch = FinetuneLaunch(
            data: data, folder: folder.url.appending(path: name), options: options, budget: budget,
            model: load ?? { model })
        launch.memory = memory
        launch.available = { available }
        return FinetuneTask(launch, cooldown: cooldown, conditions: stream, sleep: sleep)
    }

    func change(to new: TrainingConditions) { conditions?.yield(new) }

    /// Compares the adapter with the adapter of an uninterrupted run.
    func expectSameBytes(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let whole = folder.url.appending(path: "whole")
        for try await _ in model.finetune(
            on: data, savingTo: whole, options: options, resume: true)
        {}
        let file = FinetuneTaskTests.adapter
        #expect(
            try Data(contentsOf: whole.appending(path: file))
                == Data(contentsOf: target.appending(path: file)), sourceLocation: sourceLocation)
    }
}
