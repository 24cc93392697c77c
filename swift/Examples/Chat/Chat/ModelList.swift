#if canImport(SwiftUI)
    import SwiftUI

    /// The list of models, and the memory in use.
    struct ModelList: View {
        let chat: ChatModel
        /// Opens the folder picker.
        let pick: @MainActor () -> Void

        var body: some View {
            List {
                ForEach(chat.folders, id: \.self) { folder in
                    Button {
                        chat.open(folder)
                    } label: {
                        Label(
                            folder.lastPathComponent,
                            systemImage: folder == chat.folder ? "checkmark.circle.fill" : "circle")
                    }
                }
                Button("Open a folder…", systemImage: "folder", action: pick)
            }
            .navigationTitle("Models")
            .safeAreaInset(edge: .bottom) {
                if let memory = chat.memory { MemoryGauge(memory: memory).padding() }
            }
        }
    }

    /// A menu of adapters.
    struct AdapterMenu: View {
        let chat: ChatModel
        /// Opens the folder picker.
        let pick: @MainActor () -> Void

        var body: some View {
            Menu("Adapter", systemImage: "slider.horizontal.3") {
                choice("None", nil)
                ForEach(chat.adapters, id: \.self) { choice($0, $0) }
                Button("Add…", systemImage: "plus", action: pick)
            }
        }

        private func choice(_ title: String, _ name: String?) -> some View {
            Button(title, systemImage: name == chat.adapter ? "checkmark" : "circle") {
                Task { await chat.use(name) }
            }
        }
    }

    /// A gauge of the memory in use.
    struct MemoryGauge: View {
        let memory: MemoryReading

        var body: some View {
            Gauge(value: memory.share) {
                Text("Memory: \(memory.text)").font(.caption)
            }
        }
    }
#endif
