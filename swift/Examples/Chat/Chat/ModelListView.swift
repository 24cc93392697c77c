#if canImport(SwiftUI)
    import SwiftUI
    import UniformTypeIdentifiers

    /// The models on this device, and those to download.
    struct ModelListView: View {
        let chat: ChatModel
        @State private var isPicking = false

        var body: some View {
            List {
                if let problem = chat.catalog.problem { ProblemText(text: problem) }
                ForEach(chat.catalog.entries) { entry in
                    ModelRow(chat: chat, entry: entry)
                }
                Button("Open a folder…", systemImage: "folder") { isPicking = true }
            }
            .navigationTitle("Models")
            .fileImporter(isPresented: $isPicking, allowedContentTypes: [.folder]) { result in
                if case .success(let folder) = result { chat.open(folder) }
            }
            .task { await chat.catalog.refresh() }
        }
    }

    /// A model, with the actions for its state.
    private struct ModelRow: View {
        let chat: ChatModel
        let entry: ModelEntry

        private var isOpen: Bool {
            entry.folder != nil && entry.folder?.path == chat.loader.folder?.path
        }

        var body: some View {
            VStack(alignment: .leading) {
                HStack {
                    Text(entry.name)
                    Spacer()
                    action
                }
                if case .download(let model) = entry.origin {
                    Text("About \(bytes(model.bytes))").font(.caption).foregroundStyle(.secondary)
                }
                if case .downloading(let share) = entry.state {
                    ProgressView("Downloading", value: share)
                }
            }
            .accessibilityElement(children: .contain)
            .accessibilityAddTraits(isOpen ? .isSelected : [])
            .contextMenu {
                if case .download = entry.origin, entry.state != .notDownloaded {
                    Button("Delete", systemImage: "trash", role: .destructive) {
                        Task { await chat.deleteModel(entry.id) }
                    }
                }
            }
        }

        @ViewBuilder private var action: some View {
            switch entry.state {
            case .available:
                Button(
                    "Use \(entry.name)", systemImage: isOpen ? "checkmark.circle.fill" : "circle"
                ) {
                    chat.open(entry)
                }
                .labelStyle(.iconOnly)
            case .downloading:
                Button("Stop") { chat.catalog.cancelDownload(entry.id) }
            case .incomplete:
                Button("Continue the download") { chat.catalog.download(entry.id) }
            case .notDownloaded:
                Button("Download") { chat.catalog.download(entry.id) }
            }
        }
    }

    /// A menu of adapters.
    struct AdapterMenu: View {
        let adapters: AdapterList
        @State private var isPicking = false

        var body: some View {
            Menu("Adapter", systemImage: "slider.horizontal.3") {
                choice(nil, Text("No adapter"))
                ForEach(adapters.names, id: \.self) { name in
                    choice(name, Text(name))
                }
                Button("Add an adapter…", systemImage: "plus") { isPicking = true }
            }
            .fileImporter(isPresented: $isPicking, allowedContentTypes: [.folder]) { result in
                guard case .success(let folder) = result else { return }
                Task { await adapters.add(folder) }
            }
        }

        private func choice(_ name: String?, _ title: Text) -> some View {
            Button {
                Task { await adapters.use(name) }
            } label: {
                Label {
                    title
                } icon: {
                    Image(systemName: name == adapters.active ? "checkmark" : "circle")
                }
            }
        }
    }
#endif
