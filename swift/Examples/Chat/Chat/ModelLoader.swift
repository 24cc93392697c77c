import Foundation
import Observation
import OpenELM

/// The loaded model.
@MainActor @Observable final class ModelLoader {
    /// The state of the model.
    enum State: Equatable {
        case empty
        /// Fraction loaded, from 0 to 1.
        case loading(Double)
        case ready
        case failed(String)
    }

    private(set) var state = State.empty
    /// The folder of the model.
    private(set) var folder: URL?
    private(set) var model: LanguageModel?
    private(set) var memory: MemoryReading?

    /// Called before a model is unloaded; ends the work with it.
    @ObservationIgnored var willUnload: @MainActor (LanguageModel) async -> Void = { _ in }
    /// Called with a loaded model.
    @ObservationIgnored var didLoad: @MainActor (LanguageModel) async -> Void = { _ in }

    @ObservationIgnored private var isForTraining = false
    @ObservationIgnored private var access: FolderAccess?
    @ObservationIgnored private var loading: Task<Void, Never>?
    @ObservationIgnored private let available: @Sendable () -> Int?

    /// Creates a loader. `available` returns the bytes available for a model, if known.
    init(available: @escaping @Sendable () -> Int?) { self.available = available }

    /// Loads the model in `folder`, replacing the current one. With `training`, the model has a
    /// dtype that can be trained.
    func load(_ folder: URL, training: Bool = false) {
        let options = LoadOptions(training: training)
        let report: @MainActor (Double) -> Void = { [weak self] share in
            self?.report(share, of: folder)
        }
        replace(by: folder) { [self] in
            try checkRoom(for: folder, options: options, available: available())
            let access = FolderAccess(folder)
            let model = try await LanguageModel(folder: folder, options: options) { share in
                Task { await report(share) }
            }
            // The first answer then begins at once.
            try await model.warmUp()
            // Another model was chosen in the meantime.
            try Task.checkCancellation()
            (self.model, self.access, isForTraining) = (model, access, training)
            await didLoad(model)
            try Task.checkCancellation()
            state = .ready
        }
        state = .loading(0)
    }

    /// Unloads the model.
    func unload() {
        replace(by: nil) {}
        state = .empty
    }

    /// Waits until the last load has succeeded or failed.
    func finish() async {
        while let task = loading {
            await task.value
            if task == loading { return }
        }
    }

    /// Returns the model with a dtype that can be trained, and loads it again if necessary.
    func modelForTraining() async throws -> LanguageModel {
        if let model, isForTraining, state == .ready { return model }
        guard let folder, state == .ready else {
            throw ChatError(localized("Load a model first."))
        }
        load(folder, training: true)
        await finish()
        if let model, isForTraining, self.folder == folder, state == .ready { return model }
        if case .failed(let why) = state { throw ChatError(why) }
        throw ChatError(localized("Another model was chosen."))
    }

    /// Updates the memory reading.
    func readMemory() { memory = try? MemoryReading.now() }

    /// Unloads the model and runs `work`, after the previous work has ended: two models at once may
    /// exceed the memory.
    private func replace(
        by folder: URL?, _ work: @escaping @MainActor () async throws -> Void
    ) {
        let previous = loading
        previous?.cancel()
        self.folder = folder
        loading = Task {
            await previous?.value
            await release()
            guard !Task.isCancelled else { return }
            do { try await work() } catch {
                guard !Task.isCancelled else { return }
                state = .failed(errorText(error))
            }
        }
    }

    private func release() async {
        guard let old = model else { return }
        // No work with the model begins from here on.
        (model, isForTraining) = (nil, false)
        await willUnload(old)
        access = nil
    }

    private func report(_ share: Double, of folder: URL) {
        guard folder == self.folder, case .loading(let before) = state else { return }
        state = .loading(max(before, share))
    }
}

/// iOS ends an app that exceeds its memory limit, so this check comes before loading.
private func checkRoom(for folder: URL, options: LoadOptions, available: Int?) throws {
    guard let available else { return }
    let needed = try Memory.estimatedMemory(of: folder, options: options)
    guard needed > available else { return }
    throw ChatError(
        localized(
            "The model needs up to %@, %@ are free. Use a smaller model.", bytes(needed),
            bytes(available)))
}
