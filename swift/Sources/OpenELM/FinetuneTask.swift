import Foundation
import Observation

/// A fine-tuning in the life of an app: it pauses while the device is hot, in Low Power Mode and
/// while the app is not active, and continues after a later launch, with the same result as an
/// uninterrupted run.
///
///     @State private var training = FinetuneTask(on: data, savingTo: adapter) { model }
///     ProgressView(value: training.fractionCompleted)
///     Button("Train") { training.start() }
///
/// A pause saves the run and ends it; a resumption continues it from the saved state. Thus a paused
/// run uses no memory, and the app may be ended at any time during a pause without a loss. Ended
/// during training, it repeats the steps since the last checkpoint.
@MainActor @Observable public final class FinetuneTask {
    /// The state of a fine-tuning.
    public enum Phase: Sendable, Equatable {
        /// Not started, or stopped.
        case idle
        /// The model loads, or the run trains.
        case running
        /// The run is being saved, for these reasons or because it was stopped.
        case pausing(Set<PauseReason>)
        /// The run is saved and continues once these reasons have ended.
        case paused(Set<PauseReason>)
        /// The run is complete.
        case finished(FinetuneEnd)
        /// The run failed; `start()` continues it from its last checkpoint.
        case failed(OpenELMError)
    }

    /// The state.
    public private(set) var phase = Phase.idle
    /// The number of completed steps.
    public private(set) var iteration = 0
    /// The total number of steps. Smaller batches have more steps; see ``options``.
    public private(set) var iterations: Int
    /// The last step of this launch.
    public private(set) var step: FinetuneStep?
    /// The training losses of the run, of earlier launches too.
    public private(set) var losses: [LossPoint] = []
    /// The validation losses of the run, of earlier launches too.
    public private(set) var validationLosses: [LossPoint] = []
    /// The validation with the lowest loss.
    public private(set) var best: FinetuneEvent.BestIteration?
    /// The options of the run, which the memory budget may have changed.
    public private(set) var options: FinetuneOptions
    /// The conditions that pause the run; by default all.
    public var pauseReasons = Set(PauseReason.allCases) { didSet { update() } }

    /// The fraction of completed steps, from 0 to 1.
    public var fractionCompleted: Double {
        iterations > 0 ? min(1, Double(iteration) / Double(iterations)) : 0
    }
    /// Targets per second in the last step of this launch.
    public var tokensPerSecond: Double? { step?.tokensPerSecond }

    @ObservationIgnored let launch: FinetuneLaunch
    @ObservationIgnored private let cooldown: Duration
    @ObservationIgnored private let sleep: @Sendable (Duration) async throws -> Void
    @ObservationIgnored private var conditions: TrainingConditions?
    @ObservationIgnored private var observer: Task<Void, Never>?
    @ObservationIgnored private var cooling: Task<Void, Never>?
    @ObservationIgnored private var run: Task<Void, Never>?
    @ObservationIgnored private var isStarted = false
    @ObservationIgnored private var isPausedByUser = false
    /// The GPU was refused in the background.
    @ObservationIgnored private var isRefusedInBackground = false
    /// The number of background tasks in which the run may train.
    @ObservationIgnored private var backgroundTasks = 0
    @ObservationIgnored private var waiters: [AsyncStream<Void>.Continuation] = []
    /// Called after each event, in tests.
    @ObservationIgnored var onEvent: ((FinetuneEvent) -> Void)?

    /// Creates a task that trains an adapter on `data` and saves it in `folder`, as
    /// ``LanguageModel/finetune(on:savingTo:options:resume:)``. ``start()`` continues the run in
    /// `folder`, if there is one.
    ///
    /// `model` returns the model at each start and resumption. If it loads the model, a paused run
    /// uses no memory. After heat, the run continues when the device has been cooler for
    /// `cooldown`, so that it does not alternate between both.
    public convenience init(
        on data: URL, savingTo folder: URL, options: FinetuneOptions = FinetuneOptions(),
        memoryBudget: MemoryBudget = .automatic, cooldown: Duration = .seconds(30),
        conditions: AsyncStream<TrainingConditions> = TrainingConditions.updates(),
        model: @escaping @Sendable () async throws -> LanguageModel
    ) {
        let launch = FinetuneLaunch(
            data: data, folder: folder, options: options, budget: memoryBudget, model: model)
        self.init(launch, cooldown: cooldown, conditions: conditions) {
            try await Task.sleep(for: $0)
        }
    }

    init(
        _ launch: FinetuneLaunch, cooldown: Duration, conditions: AsyncStream<TrainingConditions>,
        sleep: @escaping @Sendable (Duration) async throws -> Void
    ) {
        self.launch = launch
        self.options = launch.options
        self.iterations = launch.options.iters
        self.cooldown = cooldown
        self.sleep = sleep
        observer = Task { [weak self] in
            for await new in conditions { self?.change(to: new) }
        }
    }

    // A released task saves its run.
    deinit {
        observer?.cancel()
        cooling?.cancel()
        run?.cancel()
    }

    /// Starts the run, or continues the run in the folder. Has no effect on a started run that is
    /// not stopping.
    public func start() {
        isStarted = true
        update()
    }

    /// Pauses the run until ``resume()``.
    public func pause() {
        isPausedByUser = true
        update()
    }

    /// Ends the pause of `pause()`. Other reasons may still pause the run.
    public func resume() {
        isPausedByUser = false
        update()
    }

    /// Stops the run and waits until it is saved. ``start()`` continues it.
    public func stop() async {
        isStarted = false
        isPausedByUser = false
        let run = self.run
        update()
        await run?.value
    }

    /// Waits until the run is complete, failed or stopped.
    public func finish() async { await wait { !self.isStarted && self.run == nil } }

    /// Reads the progress of the run in the folder, for a view before ``start()``.
    public func refresh() async throws {
        guard !isStarted, run == nil else { return }
        let progress = try await launch.progress()
        if !isStarted, run == nil { show(progress) }
    }
}

// MARK: - Transitions

extension FinetuneTask {
    /// The reasons for a pause now; `nil` until the conditions are known.
    private var currentReasons: Set<PauseReason>? {
        guard let conditions else { return nil }
        var reasons: Set<PauseReason> = []
        if conditions.isHot || cooling != nil { reasons.insert(.thermalState) }
        if conditions.isLowPowerModeEnabled { reasons.insert(.lowPowerMode) }
        if conditions.isInBackground, backgroundTasks == 0 { reasons.insert(.background) }
        reasons.formIntersection(pauseReasons)
        if isRefusedInBackground { reasons.insert(.background) }
        if isPausedByUser { reasons.insert(.user) }
        return reasons
    }

    private func change(to new: TrainingConditions) {
        let wasHot = conditions?.isHot ?? false
        conditions = new
        if !new.isInBackground { isRefusedInBackground = false }
        if new.isHot {
            cooling?.cancel()
            cooling = nil
        } else if wasHot, cooldown > .zero {
            cooling = Task { [weak self, sleep, cooldown] in
                try? await sleep(cooldown)
                guard !Task.isCancelled else { return }
                self?.cooling = nil
                self?.update()
            }
        }
        update()
    }

    /// Brings the run into the state that the app, the user and the conditions require. A run that
    /// is being saved continues, if it may, after the save.
    private func update() {
        defer { notify() }
        let reasons = currentReasons
        if let run {
            if !isStarted || reasons?.isEmpty == false {
                run.cancel()
                phase = .pausing(isStarted ? reasons ?? [] : [])
            }
            return
        }
        guard isStarted else {
            switch phase {
            case .running, .pausing, .paused: phase = .idle
            case .idle, .finished, .failed: break
            }
            return
        }
        guard let reasons else { return }
        if reasons.isEmpty { begin() } else { phase = .paused(reasons) }
    }

    private func begin() {
        phase = .running
        // A run that is being saved, of this folder and of a released task.
        let place = launch.folder.resolvingSymlinksInPath().path
        let previous = Self.runs[place].flatMap { $0.isCancelled ? $0 : nil }
        let run = Task { [weak self, launch] in
            var end: FinetuneEnd?
            do {
                await previous?.value
                let (events, options, progress) = try await launch.begin()
                self?.begun(options, progress)
                // A released task has cancelled this one: the events end after the save.
                for try await event in events {
                    self?.take(event)
                    if case .finished(_, let reason, _) = event { end = reason }
                }
                self?.ended(end, nil)
            } catch {
                self?.ended(end, error)
            }
        }
        self.run = run
        Self.runs[place] = run
    }

    /// The last run in each folder.
    private static var runs: [String: Task<Void, Never>] = [:]

    private func begun(_ options: FinetuneOptions, _ progress: FinetuneProgress) {
        self.options = options
        show(progress)
    }

    private func show(_ progress: FinetuneProgress) {
        iteration = progress.checkpoint?.iteration ?? 0
        best = progress.checkpoint?.best
        losses = progress.losses
        validationLosses = progress.validationLosses
        iterations = launch.iterations(of: options, saved: progress.checkpoint)
    }

    private func take(_ event: FinetuneEvent) {
        switch event {
        case .step(let step):
            self.step = step
            iteration = step.iteration
            losses.append(LossPoint(iteration: step.iteration, loss: Double(step.loss)))
        case .validation(let iteration, let loss, let isBest):
            validationLosses.append(LossPoint(iteration: iteration, loss: loss))
            if isBest { best = FinetuneEvent.BestIteration(iteration: iteration, loss: loss) }
        case .saved: break
        case .finished(let iteration, _, let best):
            self.iteration = iteration
            self.best = best
        }
        onEvent?(event)
        notify()
    }

    /// The run has ended with `end`, and its state is on disk, or it has failed.
    private func ended(_ end: FinetuneEnd?, _ error: (any Error)?) {
        let wasCancelled = run?.isCancelled ?? false
        run = nil
        switch (end, error) {
        case (.iterations?, _), (.patience?, _):
            isStarted = false
            phase = end.map(Phase.finished) ?? .idle
        case (_, nil), (_, is CancellationError):
            // Cancelled, but not by this task: the model's closure was.
            if !wasCancelled { isStarted = false }
        case (_, let error?):
            let error =
                OpenELMError.from(error) as? OpenELMError
                ?? .unexpected(message: String(describing: error))
            if case .device = error, conditions?.isInBackground == true, isStarted {
                isRefusedInBackground = true
            } else {
                isStarted = false
                phase = .failed(error)
            }
        }
        update()
    }
}

// MARK: - Background tasks

extension FinetuneTask {
    /// Runs until the run ends or pauses; it may train in the background until `expired` ends.
    /// Returns true if the run is complete.
    func runInBackground(_ expired: AsyncStream<Void>, progress: (Int, Int) -> Void) async -> Bool {
        backgroundTasks += 1
        isRefusedInBackground = false
        var isExpired = false
        func expire() {
            guard !isExpired else { return }
            isExpired = true
            backgroundTasks -= 1
            // Also if `pauseReasons` does not have the background: the system ends the app.
            if conditions?.isInBackground == true { isRefusedInBackground = true }
            update()
        }
        let expiration = Task {
            for await _ in expired {}
            expire()
        }
        start()
        await wait {
            progress(self.iteration, self.iterations)
            // An app that has become active meanwhile continues to train without the task.
            if isExpired, self.conditions?.isInBackground != true { return true }
            switch self.phase {
            case .idle: return !self.isStarted
            case .running, .pausing: return false
            case .paused, .finished, .failed: return true
            }
        }
        expiration.cancel()
        expire()
        await wait { if case .pausing = self.phase { false } else { true } }
        if case .finished = phase { return true }
        return false
    }
}

// MARK: - Waiting

extension FinetuneTask {
    /// Waits until `isReached` is true; returns early if the task of the caller is cancelled.
    func wait(until isReached: () -> Bool) async {
        while !isReached(), !Task.isCancelled {
            let (changes, change) = AsyncStream.makeStream(of: Void.self)
            waiters.append(change)
            for await _ in changes {}
        }
    }

    private func notify() {
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.finish() }
    }
}
