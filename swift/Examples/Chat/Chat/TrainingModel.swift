import Foundation
import Observation
import OpenELM

/// Fine-tuning of an adapter for the loaded model. A run pauses while the device is hot, in Low
/// Power Mode and in the background, and continues by itself.
@MainActor @Observable final class TrainingModel {
    /// The file or folder with the data of a new run.
    var data: URL?
    /// The name of a new run.
    var name = ""
    /// The options of a new run.
    var options = TrainingOptions()

    /// All runs on this device.
    private(set) var runs: [TrainingRun] = []
    /// The current or last run.
    private(set) var run: TrainingRun?
    /// The state and the losses of the current or last run.
    private(set) var task: FinetuneTask?
    /// A Boolean value that is true until the run is complete, failed or stopped.
    private(set) var isActive = false
    /// The last error.
    private(set) var problem: String?

    @ObservationIgnored private let store: TrainingStore
    @ObservationIgnored private let loader: ModelLoader
    @ObservationIgnored private let environment: ChatEnvironment
    @ObservationIgnored private var ending: Task<Void, Never>?
    /// The run loads the model again.
    @ObservationIgnored private var isLoading = false

    init(store: TrainingStore, loader: ModelLoader, environment: ChatEnvironment) {
        self.store = store
        self.loader = loader
        self.environment = environment
    }

    /// A Boolean value that is true if a new run can be started.
    var canStart: Bool {
        let name = name.trimmingCharacters(in: .whitespacesAndNewlines)
        return !isActive && data != nil && !name.isEmpty && loader.state == .ready
    }

    /// The reasons of a pause.
    var pauseReasons: Set<PauseReason> {
        switch task?.phase {
        case .pausing(let reasons)?, .paused(let reasons)?: reasons
        default: []
        }
    }

    /// Reads the runs from their files.
    func load() {
        do {
            let (runs, unreadable) = try store.load()
            self.runs = runs
            problem =
                unreadable.isEmpty
                ? nil
                : localized(
                    "These runs could not be read and were left as they are: %@",
                    unreadable.joined(separator: ", "))
        } catch {
            problem = localized("The runs could not be read: %@", errorText(error))
        }
    }

    /// Starts a new run.
    func start() {
        guard canStart, let data, let folder = loader.folder else { return }
        problem = nil
        do {
            let access = FolderAccess(data)
            let run = try withExtendedLifetime(access) {
                try store.create(
                    name, model: folder.lastPathComponent, data: data, options: options)
            }
            runs.append(run)
            runs.sort { $0.name < $1.name }
            (self.data, name) = (nil, "")
            begin(run)
        } catch {
            problem = errorText(error)
        }
    }

    /// Continues a run from its last checkpoint.
    func resume(_ run: TrainingRun) {
        guard !isActive, !run.isFinished else { return }
        guard loader.state == .ready, loader.folder?.lastPathComponent == run.model else {
            problem = localized("Load the model %@ to resume this run.", run.model)
            return
        }
        problem = nil
        begin(run)
    }

    /// Pauses the run until `unpause()`.
    func pause() { task?.pause() }

    /// Ends the pause of `pause()`.
    func unpause() { task?.resume() }

    /// Stops the run, saves it, and returns when it is saved.
    func stop() async {
        await task?.stop()
        await finish()
    }

    /// Waits until the run has ended.
    func finish() async { await ending?.value }

    /// Stops the run before its model is unloaded.
    func release() async {
        guard isActive, !isLoading else { return }
        await stop()
    }

    /// Deletes a run with its data and adapter.
    func delete(_ run: TrainingRun) {
        guard !isActive || run.id != self.run?.id else { return }
        do {
            try store.delete(run)
            runs.removeAll { $0.id == run.id }
            if self.run?.id == run.id { (self.run, task) = (nil, nil) }
            problem = nil
        } catch {
            problem = localized("The run could not be deleted: %@", errorText(error))
        }
    }

    /// The folder of the run's adapter.
    func adapter(of run: TrainingRun) -> URL { store.adapter(of: run) }

    private func begin(_ run: TrainingRun) {
        let task = FinetuneTask(
            on: store.data(of: run), savingTo: store.adapter(of: run), options: run.options.options,
            conditions: environment.conditions()
        ) { [weak self] in
            guard let self else { throw CancellationError() }
            return try await self.model(of: run)
        }
        (self.run, self.task, isActive) = (run, task, true)
        task.start()
        ending = Task {
            await task.finish()
            ended(run, task.phase)
        }
    }

    /// The model, loaded for training. It is requested at the start and after each pause.
    private func model(of run: TrainingRun) async throws -> LanguageModel {
        isLoading = true
        defer { isLoading = false }
        do {
            guard loader.folder?.lastPathComponent == run.model else {
                throw ChatError(localized("Load the model %@ to resume this run.", run.model))
            }
            return try await loader.modelForTraining()
        } catch {
            // Ends the run, which can be resumed.
            problem = errorText(error)
            throw CancellationError()
        }
    }

    private func ended(_ run: TrainingRun, _ phase: FinetuneTask.Phase) {
        isActive = false
        switch phase {
        case .finished:
            environment.announce(localized("The training of %@ is complete.", run.name))
            var run = run
            run.isFinished = true
            self.run = run
            if let place = runs.firstIndex(where: { $0.id == run.id }) { runs[place] = run }
            do { try store.save(run) } catch {
                problem = localized("The run could not be saved: %@", errorText(error))
            }
        case .failed(let error):
            let text = errorText(error)
            problem = text
            environment.announce(localized("The training failed: %@", text))
        case .idle, .running, .pausing, .paused: break
        }
    }
}
