import Foundation
import Observation
import OpenELM

/// Fine-tuning of an adapter for the loaded model.
@MainActor @Observable final class TrainingModel {
    /// The state of the run.
    enum State: Equatable {
        case idle
        /// The model is loaded with a dtype that can be trained.
        case preparing
        case running
        /// The run is saved and can be resumed.
        case stopped
        case finished
        case failed(String)
    }

    /// A loss after a number of iterations.
    struct Point: Identifiable, Equatable, Sendable {
        let iteration: Int
        let loss: Double
        var id: Int { iteration }
    }

    /// The file or folder with the data of a new run.
    var data: URL?
    /// The name of a new run.
    var name = ""
    /// The options of a new run.
    var options = TrainingOptions()

    private(set) var state = State.idle
    /// All runs on this device.
    private(set) var runs: [TrainingRun] = []
    /// The current or last run.
    private(set) var run: TrainingRun?
    /// Losses of the current run since it was started or resumed.
    private(set) var losses: [Point] = []
    private(set) var validations: [Point] = []
    private(set) var tokensPerSecond = 0.0
    /// The last error of a file.
    private(set) var problem: String?

    @ObservationIgnored private let store: TrainingStore
    @ObservationIgnored private let loader: ModelLoader
    @ObservationIgnored private let announce: @MainActor @Sendable (String) -> Void
    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var task: Task<Void, Never>?
    @ObservationIgnored private var end: FinetuneEnd?

    init(
        store: TrainingStore, loader: ModelLoader,
        announce: @escaping @MainActor @Sendable (String) -> Void
    ) {
        self.store = store
        self.loader = loader
        self.announce = announce
    }

    /// A Boolean value that is true from the start of a run until it is saved.
    var isActive: Bool { task != nil }

    /// A Boolean value that is true if a new run can be started.
    var canStart: Bool {
        let name = name.trimmingCharacters(in: .whitespacesAndNewlines)
        return !isActive && data != nil && !name.isEmpty && loader.state == .ready
    }

    /// Fraction of the iterations that are complete, from 0 to 1.
    var progress: Double {
        guard let run, run.options.iterations > 0 else { return 0 }
        return min(1, Double(losses.last?.iteration ?? 0) / Double(run.options.iterations))
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
            begin(run, resume: false)
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
        begin(run, resume: true)
    }

    /// Stops the run, which is saved before its next step.
    func stop() { task?.cancel() }

    /// Waits until the run has ended.
    func finish() async { await task?.value }

    /// Stops a run of `model`, which is about to be unloaded.
    func release(_ model: LanguageModel) async {
        guard self.model === model else { return }
        stop()
        await finish()
    }

    /// Deletes a run with its data and adapter.
    func delete(_ run: TrainingRun) {
        guard !isActive || run.id != self.run?.id else { return }
        do {
            try store.delete(run)
            runs.removeAll { $0.id == run.id }
            if self.run?.id == run.id {
                (self.run, state, losses, validations) = (nil, .idle, [], [])
            }
            problem = nil
        } catch {
            problem = localized("The run could not be deleted: %@", errorText(error))
        }
    }

    /// The folder of the run's adapter.
    func adapter(of run: TrainingRun) -> URL { store.adapter(of: run) }

    private func begin(_ run: TrainingRun, resume: Bool) {
        (self.run, state, losses, validations, end) = (run, .preparing, [], [], nil)
        task = Task {
            do {
                let model = try await loader.modelForTraining()
                try Task.checkCancellation()
                self.model = model
                state = .running
                for try await event in events(of: run, model: model, resume: resume) { take(event) }
                ended(run)
            } catch is CancellationError {
                ended(run)
            } catch {
                let text = errorText(error)
                state = .failed(text)
                announce(localized("The training failed: %@", text))
            }
            (model, task) = (nil, nil)
        }
    }

    /// The events of a run. This is the place for a run that pauses and resumes with the app.
    private func events(
        of run: TrainingRun, model: LanguageModel, resume: Bool
    ) -> FinetuneEvents {
        model.finetune(
            on: store.data(of: run), savingTo: store.adapter(of: run), options: run.options.options,
            resume: resume)
    }

    private func take(_ event: FinetuneEvent) {
        switch event {
        case .step(let step):
            losses.append(Point(iteration: step.iteration, loss: Double(step.loss)))
            tokensPerSecond = step.tokensPerSecond
        case .validation(let iteration, let loss, _):
            validations.append(Point(iteration: iteration, loss: loss))
        case .finished(_, let reason, _): end = reason
        case .saved: break
        }
    }

    /// A run that was stopped in its last step is complete.
    private func ended(_ run: TrainingRun) {
        guard end == .iterations || end == .patience else {
            state = .stopped
            return
        }
        state = .finished
        announce(localized("The training of %@ is complete.", run.name))
        var run = run
        run.isFinished = true
        self.run = run
        if let place = runs.firstIndex(where: { $0.id == run.id }) { runs[place] = run }
        do { try store.save(run) } catch {
            problem = localized("The run could not be saved: %@", errorText(error))
        }
    }
}
