import Foundation
import Observation
import OpenELM

/// State and actions of the app, displayed by the views.
@MainActor @Observable final class ChatModel {
    let settings: SettingsModel
    let catalog: ModelCatalog
    let conversations: ConversationList
    let loader: ModelLoader
    let adapters: AdapterList
    let training: TrainingModel
    /// The open conversation.
    private(set) var session: ChatSession
    /// The open sheet.
    var sheet: ChatSheet?

    /// Conversations that were left while their answer stops.
    @ObservationIgnored private var left: [ChatSession] = []
    @ObservationIgnored private let environment: ChatEnvironment

    init(environment: ChatEnvironment) {
        self.environment = environment
        let directory = environment.directory
        let loader = ModelLoader(available: environment.available)
        let adapters = AdapterList()
        settings = SettingsModel(directory: directory)
        catalog = ModelCatalog(
            sample: environment.sample, documents: environment.documents,
            library: environment.library, offered: environment.offered)
        conversations = ConversationList(
            store: ConversationStore(directory: directory.appending(path: "Conversations")))
        training = TrainingModel(
            store: TrainingStore(directory: directory.appending(path: "Training")), loader: loader,
            environment: environment)
        self.loader = loader
        self.adapters = adapters
        session = ChatSession(
            SavedConversation(template: .automatic, changed: environment.now(), messages: []),
            settings: settings, list: conversations, environment: environment)
        loader.willUnload = { [weak self] in await self?.release($0) }
        loader.didLoad = { [weak self] in await self?.take($0) }
        newConversation()
    }

    /// Reads the files and loads the last model, or the sample.
    func start(_ arguments: LaunchArguments = LaunchArguments([])) async {
        sheet = arguments.sheet
        conversations.load()
        training.load()
        await catalog.refresh()
        guard loader.state == .empty else { return }
        let last = settings.settings.lastModel.flatMap { catalog[$0] }
        if let entry = last?.folder == nil ? catalog["sample"] : last { open(entry) }
        guard let prompt = arguments.prompt else { return }
        await loader.finish()
        session.draft = prompt
        session.send()
    }

    /// Loads the model of `entry`, replacing the current one. The open conversation stays.
    func open(_ entry: ModelEntry) {
        guard let folder = entry.folder else { return }
        settings.settings.lastModel = entry.id
        loader.load(folder)
    }

    /// Adds a folder that the user picked and loads its model.
    func open(_ folder: URL) { open(catalog.add(folder)) }

    /// Deletes a downloaded model, after unloading it.
    func deleteModel(_ id: ModelEntry.ID) async {
        if let folder = catalog[id]?.folder, loader.folder?.path == folder.path {
            loader.unload()
            await loader.finish()
        }
        await catalog.delete(id)
    }

    /// Begins a conversation with the instructions and the template of the settings.
    func newConversation() {
        let instructions = settings.settings.instructions
            .trimmingCharacters(in: .whitespacesAndNewlines)
        show(
            SavedConversation(
                template: settings.settings.template, changed: environment.now(),
                messages: instructions.isEmpty
                    ? [] : [.init(role: .instructions, text: instructions)]))
    }

    /// Begins a conversation with the instructions, template and draft of the open one, whose
    /// context is full.
    func continueInNewConversation() {
        let full = session
        show(
            SavedConversation(
                template: full.saved.template, changed: environment.now(),
                messages: full.saved.instructions))
        session.draft = full.draft
    }

    /// Opens a saved conversation.
    func open(_ id: SavedConversation.ID) {
        guard id != session.id else { return }
        if let session = left.first(where: { $0.id == id && $0.isResponding }) {
            leave()
            self.session = session
        } else if let saved = conversations.conversations.first(where: { $0.id == id }) {
            show(saved)
        }
    }

    /// Changes the title of a conversation.
    func rename(_ id: SavedConversation.ID, to title: String) {
        conversations.rename(id, to: title)
        guard id == session.id else { return }
        session.rename(to: conversations.conversations.first { $0.id == id }?.name)
    }

    /// Deletes a conversation. If it is open, a new one replaces it.
    func delete(_ id: SavedConversation.ID) {
        for session in left + [session] where session.id == id { session.discard() }
        conversations.delete(id)
        if id == session.id { newConversation() }
    }

    /// Applies the adapter of a finished run.
    func useAdapter(of run: TrainingRun) async {
        await adapters.add(training.adapter(of: run), as: run.name)
    }

    private func show(_ saved: SavedConversation) {
        leave()
        let session = ChatSession(
            saved, settings: settings, list: conversations, environment: environment)
        self.session = session
        if let model = loader.model { session.begin(with: model) }
    }

    /// Leaves the open conversation. Its answer is saved when it has stopped.
    private func leave() {
        session.stop()
        left.removeAll { !$0.isResponding }
        if session.isResponding { left.append(session) }
    }

    private func take(_ model: LanguageModel) async {
        adapters.reset(model)
        await session.attach(model)
    }

    private func release(_ model: LanguageModel) async {
        await training.release()
        for session in left + [session] { await session.detach() }
        adapters.reset(nil)
    }
}
