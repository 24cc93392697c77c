import Foundation
import Observation
import OpenELM

/// The adapters of the loaded model.
@MainActor @Observable final class AdapterList {
    /// The names of the adapters.
    private(set) var names: [String] = []
    /// The active adapter.
    private(set) var active: String?
    /// The last error.
    private(set) var problem: String?

    @ObservationIgnored private var model: LanguageModel?
    @ObservationIgnored private var access: [FolderAccess] = []

    /// Begins an empty list for `model`.
    func reset(_ model: LanguageModel?) {
        self.model = model
        (names, active, problem, access) = ([], nil, nil, [])
    }

    /// Adds the adapter in `folder` and activates it.
    func add(_ folder: URL, as name: String? = nil) async {
        let name = name ?? folder.lastPathComponent
        guard !names.contains(name) else { return await use(name) }
        let access = FolderAccess(folder)
        await change { model in
            try await model.addAdapter(name, folder: folder)
            return name
        }
        if active == name { self.access.append(access) }
    }

    /// Activates the adapter `name`; `nil` uses the base model.
    func use(_ name: String?) async {
        await change { model in
            try await model.setAdapters(name.map { [Adapter($0)] } ?? [])
            return name
        }
    }

    private func change(_ work: (LanguageModel) async throws -> String?) async {
        guard let model else { return }
        problem = nil
        do {
            let active = try await work(model)
            let names = try await model.adapters
            // Another model was chosen in the meantime.
            guard model === self.model else { return }
            (self.active, self.names) = (active, names)
        } catch {
            guard model === self.model else { return }
            problem = errorText(error)
        }
    }
}
