import Foundation
import Observation
import OpenELM

/// State and actions of the app, displayed by the views.
@MainActor @Observable final class ChatModel {
    /// State of the model.
    enum State: Equatable {
        case empty
        /// Fraction loaded, from 0 to 1.
        case loading(Double)
        case ready
        case failed(String)
    }

    /// Model folders to choose from.
    private(set) var folders: [URL] = []
    /// The chosen folder.
    private(set) var folder: URL?
    private(set) var state = State.empty
    private(set) var conversation: Conversation?
    /// The model's adapters.
    private(set) var adapters: [String] = []
    /// The active adapter.
    private(set) var adapter: String?
    /// The last error of an adapter.
    private(set) var problem: String?
    private(set) var memory: MemoryReading?
    /// Options for the next answers.
    var options: GenerationOptions

    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var access: [FolderAccess] = []
    @ObservationIgnored private var loading: Task<Void, Never>?
    @ObservationIgnored private let available: @Sendable () -> Int?

    /// Creates the state. `available` returns the bytes available for a model, if known.
    init(
        options: GenerationOptions = GenerationOptions(
            samplingMode: .random(probabilityThreshold: 0.95), temperature: 0.7,
            repetitionPenalty: 1.2),
        available: @escaping @Sendable () -> Int? = { (try? Memory.available) ?? nil }
    ) {
        self.options = options
        self.available = available
    }

    /// Finds models in the app's documents.
    func scanDocuments() {
        let places = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)
        for place in places { scan(place) }
    }

    /// Finds models in the folders inside `parent`.
    func scan(_ parent: URL) {
        let inside = try? FileManager.default.contentsOfDirectory(
            at: parent, includingPropertiesForKeys: nil)
        let found = (inside ?? []).filter { folder in
            let config = folder.appending(path: "config.json").path
            return FileManager.default.fileExists(atPath: config)
        }
        for folder in found.sorted(by: { $0.path < $1.path }) { remember(folder) }
    }

    /// Loads the model in `folder`, replacing the current one.
    func open(_ folder: URL) {
        close()
        remember(folder)
        self.folder = folder
        state = .loading(0)
        access = [FolderAccess(folder)]
        let progress: @MainActor (Double) -> Void = { [weak self] share in
            self?.progress(share, of: folder)
        }
        loading = Task { [weak self, available] in
            do {
                try checkRoom(for: folder, available: available())
                let model = try await LanguageModel(folder: folder) { share in
                    Task { await progress(share) }
                }
                // The first answer then begins at once.
                try await model.warmUp()
                try Task.checkCancellation()
                try self?.take(model, named: folder.lastPathComponent)
            } catch {
                // Another model was chosen in the meantime.
                guard !Task.isCancelled else { return }
                self?.state = .failed(words(error))
            }
        }
    }

    /// Unloads the model.
    func close() {
        loading?.cancel()
        conversation?.stop()
        (loading, conversation, model, folder) = (nil, nil, nil, nil)
        (adapters, adapter, problem, access) = ([], nil, nil, [])
        state = .empty
    }

    /// Waits until the load has succeeded or failed.
    func finishLoading() async { await loading?.value }

    /// Starts a new conversation.
    func startOver() {
        guard let model, let folder else { return }
        conversation?.stop()
        do { try begin(model, named: folder.lastPathComponent) } catch {
            state = .failed(words(error))
        }
    }

    /// Adds the adapter in `folder` and activates it.
    func addAdapter(_ folder: URL) async {
        let name = folder.lastPathComponent
        guard !adapters.contains(name) else { return await use(name) }
        let access = FolderAccess(folder)
        await change { model in
            try await model.addAdapter(name, folder: folder)
            return name
        }
        if adapter == name { self.access.append(access) }
    }

    /// Activates the adapter `name`; `nil` uses the base model.
    func use(_ name: String?) async {
        await change { model in
            try await model.setAdapters(name.map { [Adapter($0)] } ?? [])
            return name
        }
    }

    /// Updates the memory reading.
    func readMemory() { memory = try? MemoryReading.now() }

    /// Choosing a folder again replaces it, because the new URL carries a new access right.
    private func remember(_ folder: URL) {
        if let place = folders.firstIndex(where: { $0.path == folder.path }) {
            folders[place] = folder
        } else {
            folders.append(folder)
        }
    }

    private func progress(_ share: Double, of folder: URL) {
        guard folder == self.folder, case .loading(let before) = state else { return }
        state = .loading(max(before, share))
    }

    private func take(_ model: LanguageModel, named name: String) throws {
        try begin(model, named: name)
        self.model = model
        state = .ready
    }

    private func begin(_ model: LanguageModel, named name: String) throws {
        conversation = try Conversation(
            model: model, template: template(named: name), options: options)
    }

    private func change(_ work: (LanguageModel) async throws -> String?) async {
        guard let model else { return }
        problem = nil
        do {
            let active = try await work(model)
            let all = try await model.adapters
            // Another model was chosen in the meantime.
            guard model === self.model else { return }
            (adapter, adapters) = (active, all)
        } catch {
            problem = words(error)
        }
    }
}

/// The template for a model with this name. Base models continue text.
func template(named name: String) -> ChatTemplate {
    name.localizedCaseInsensitiveContains("instruct") ? .openELMInstruct : .plain
}

/// An error's message and recovery suggestion.
func words(_ error: any Error) -> String {
    guard let error = error as? OpenELMError else { return error.localizedDescription }
    return [error.errorDescription, error.recoverySuggestion].compactMap(\.self)
        .joined(separator: ". ")
}

private struct NoRoom: LocalizedError {
    let needed: Int
    let available: Int
    var errorDescription: String? {
        let (needed, available) = (bytes(needed), bytes(available))
        return "The model needs up to \(needed), \(available) are free. Use a smaller model."
    }
}

/// iOS ends an app that exceeds its memory limit, so this check comes before loading.
private func checkRoom(for folder: URL, available: Int?) throws {
    guard let available else { return }
    let needed = try Memory.estimatedMemory(of: folder)
    if needed > available { throw NoRoom(needed: needed, available: available) }
}
