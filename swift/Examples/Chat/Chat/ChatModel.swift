import Foundation
import Observation
import OpenELM

/// State and actions of the app; the views only draw them.
@MainActor @Observable final class ChatModel {
    /// State of the model.
    enum State: Equatable {
        case empty
        /// The share that has been read.
        case loading(Double)
        case ready
        case failed(String)
    }

    /// Folders of models to pick from.
    private(set) var folders: [URL] = []
    /// The folder that was picked.
    private(set) var folder: URL?
    private(set) var state = State.empty
    private(set) var conversation: Conversation?
    /// Adapters that the model has.
    private(set) var adapters: [String] = []
    /// The one that is active.
    private(set) var adapter: String?
    /// The last error of an adapter.
    private(set) var problem: String?
    private(set) var memory: MemoryReading?
    /// Options of the next answers.
    var options: GenerationOptions

    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var access: [FolderAccess] = []
    @ObservationIgnored private var loading: Task<Void, Never>?
    @ObservationIgnored private let available: @Sendable () -> Int?

    /// `available` returns the bytes available for a model, if known.
    init(
        options: GenerationOptions = GenerationOptions(
            sampling: .random(probabilityThreshold: 0.95), temperature: 0.7,
            repetitionPenalty: 1.2),
        available: @escaping @Sendable () -> Int? = { (try? Memory.available) ?? nil }
    ) {
        self.options = options
        self.available = available
    }

    /// Finds the models among the app's documents.
    func scanDocuments() {
        let places = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask)
        for place in places { scan(place) }
    }

    /// Finds the models among the folders in `parent`.
    func scan(_ parent: URL) {
        let inside = try? FileManager.default.contentsOfDirectory(
            at: parent, includingPropertiesForKeys: nil)
        let found = (inside ?? []).filter { folder in
            let config = folder.appending(path: "config.json").path
            return FileManager.default.fileExists(atPath: config)
        }
        for folder in found.sorted(by: { $0.path < $1.path }) { remember(folder) }
    }

    /// Loads the model in `folder` in place of the current one.
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
                try Task.checkCancellation()
                try self?.take(model, named: folder.lastPathComponent)
            } catch {
                // Another model was chosen meanwhile.
                guard !Task.isCancelled else { return }
                self?.state = .failed(words(error))
            }
        }
    }

    /// Releases the model.
    func close() {
        loading?.cancel()
        conversation?.stop()
        (loading, conversation, model, folder) = (nil, nil, nil, nil)
        (adapters, adapter, problem, access) = ([], nil, nil, [])
        state = .empty
    }

    /// Waits until the load has succeeded or failed.
    func finishLoading() async { await loading?.value }

    /// Begins a new conversation.
    func startOver() {
        guard let model, let folder else { return }
        conversation?.stop()
        do { try begin(model, named: folder.lastPathComponent) } catch {
            state = .failed(words(error))
        }
    }

    /// Adds the adapter in `folder` and makes it the active one.
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

    /// Makes the adapter `name` the active one; `nil` is the model as loaded.
    func use(_ name: String?) async {
        await change { model in
            try await model.setAdapters(name.map { [Adapter($0)] } ?? [])
            return name
        }
    }

    /// Updates the memory reading.
    func readMemory() { memory = try? MemoryReading.now() }

    /// A folder that is chosen again replaces the old one: it carries a new access right.
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
            // Another model was chosen meanwhile.
            guard model === self.model else { return }
            (adapter, adapters) = (active, all)
        } catch {
            problem = words(error)
        }
    }
}

/// The template for a model of this name: base models continue the text.
func template(named name: String) -> ChatTemplate {
    name.localizedCaseInsensitiveContains("instruct") ? .openELMInstruct : .plain
}

/// An error's message and advice.
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
        return "The model needs up to \(needed), and \(available) are free. Take a smaller one."
    }
}

/// iOS ends an app that exceeds the available memory, so check before the load.
private func checkRoom(for folder: URL, available: Int?) throws {
    guard let available else { return }
    let needed = try Memory.estimatedMemory(of: folder)
    if needed > available { throw NoRoom(needed: needed, available: available) }
}
