import Foundation
import Observation
import OpenELM

/// What the app shows and does; the views only draw it.
@MainActor @Observable final class ChatModel {
    /// How far the model is.
    enum State: Equatable {
        case empty
        /// The share that was read.
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
    /// What went wrong with an adapter.
    private(set) var problem: String?
    private(set) var memory: MemoryReading?
    /// How answers are generated.
    var options: GenerationOptions

    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var access: [FolderAccess] = []
    @ObservationIgnored private var loading: Task<Void, Never>?
    @ObservationIgnored private let available: @Sendable () -> Int?

    /// `available` says how many bytes there are for a model, where that is known.
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

    /// Loads the model in `folder` in the place of the one there is.
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
                // Another one was picked meanwhile.
                guard !Task.isCancelled else { return }
                self?.state = .failed(words(error))
            }
        }
    }

    /// Lets go of the model.
    func close() {
        loading?.cancel()
        conversation?.stop()
        (loading, conversation, model, folder) = (nil, nil, nil, nil)
        (adapters, adapter, problem, access) = ([], nil, nil, [])
        state = .empty
    }

    /// Waits until the model is there, or is not.
    func finishLoading() async { await loading?.value }

    /// Begins the conversation anew.
    func startOver() {
        guard let model, let folder else { return }
        conversation?.stop()
        do { try begin(model, named: folder.lastPathComponent) } catch {
            state = .failed(words(error))
        }
    }

    /// Takes in the adapter in `folder` and makes it the active one.
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

    /// Makes the adapter `name` the active one; `nil` is the model as it was loaded.
    func use(_ name: String?) async {
        await change { model in
            try await model.setAdapters(name.map { [Adapter($0)] } ?? [])
            return name
        }
    }

    /// Looks at the memory again.
    func readMemory() { memory = try? MemoryReading.now() }

    /// A folder that was picked again brings its leave to be read with it.
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
            // Another one was picked meanwhile.
            guard model === self.model else { return }
            (adapter, adapters) = (active, all)
        } catch {
            problem = words(error)
        }
    }
}

/// How a model of this name is talked to: base models go on with the text.
func template(named name: String) -> ChatTemplate {
    name.localizedCaseInsensitiveContains("instruct") ? .openELMInstruct : .plain
}

/// An error and what to do about it.
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

/// iOS ends an app that takes more than there is: better not to begin.
private func checkRoom(for folder: URL, available: Int?) throws {
    guard let available else { return }
    let needed = try Memory.estimatedMemory(of: folder)
    if needed > available { throw NoRoom(needed: needed, available: available) }
}
