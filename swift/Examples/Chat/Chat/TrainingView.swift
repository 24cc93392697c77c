#if canImport(SwiftUI)
    import OpenELM
    import SwiftUI
    import UniformTypeIdentifiers

    /// A new run, the current one, and all runs on this device.
    struct TrainingView: View {
        let chat: ChatModel
        @Bindable var training: TrainingModel
        @State private var isPicking = false

        var body: some View {
            Form {
                if let problem = training.problem { ProblemText(text: problem) }
                if let task = training.task { RunSection(training: training, task: task) }
                if !training.isActive { newRun }
                Section("Runs") {
                    ForEach(training.runs) { run in
                        RunRow(chat: chat, training: training, run: run)
                    }
                }
            }
            .navigationTitle("Training")
            .fileImporter(
                isPresented: $isPicking, allowedContentTypes: [.json, .plainText, .data, .folder]
            ) { result in
                if case .success(let data) = result { training.data = data }
            }
        }

        private var newRun: some View {
            Section("New run") {
                TextField("Name of the adapter", text: $training.name)
                Button("Choose data…") { isPicking = true }
                if let data = training.data { Text(data.lastPathComponent) }
                Stepper(value: $training.options.iterations, in: 10...10_000, step: 10) {
                    LabeledContent("Iterations") { Text(training.options.iterations.formatted()) }
                }
                Stepper(value: $training.options.batchSize, in: 1...32) {
                    LabeledContent("Rows per batch") {
                        Text(training.options.batchSize.formatted())
                    }
                }
                Stepper(value: $training.options.rank, in: 1...64) {
                    LabeledContent("Rank") { Text(training.options.rank.formatted()) }
                }
                Picker("Learning rate", selection: $training.options.learningRate) {
                    ForEach([1e-5, 3e-5, 1e-4, 3e-4, 1e-3], id: \.self) { rate in
                        Text(rate.formatted(.number.notation(.scientific))).tag(rate)
                    }
                }
                Button("Start") { training.start() }.disabled(!training.canStart)
            }
        }
    }

    /// The state and the losses of the current or last run.
    private struct RunSection: View {
        let training: TrainingModel
        let task: FinetuneTask

        var body: some View {
            Section {
                state
                if let loss = task.losses.last { row("Loss", loss) }
                if let loss = task.validationLosses.last { row("Validation loss", loss) }
                if let speed = task.tokensPerSecond, training.isActive {
                    LabeledContent("Tokens per second") {
                        Text(speed.formatted(.number.precision(.fractionLength(0))))
                    }
                }
                if training.isActive {
                    if training.pauseReasons.contains(.user) {
                        Button("Continue") { training.unpause() }
                    } else {
                        Button("Pause") { training.pause() }
                    }
                    Button("Stop") { Task { await training.stop() } }
                }
                if !task.losses.isEmpty {
                    DisclosureGroup("Losses") {
                        ScrollView {
                            LazyVStack(alignment: .leading) {
                                ForEach(task.losses.reversed()) { row("Step", $0) }
                            }
                        }
                        .frame(maxHeight: 240)
                    }
                }
            } header: {
                Text(training.run?.name ?? "")
            }
        }

        @ViewBuilder private var state: some View {
            switch task.phase {
            case .idle: Text("Stopped and saved")
            case .running: ProgressView("Training", value: task.fractionCompleted)
            case .pausing: ProgressView("Saving")
            case .paused(let reasons):
                Text("Paused and saved")
                if reasons.contains(.thermalState) { Text("The device is hot.") }
                if reasons.contains(.lowPowerMode) { Text("Low Power Mode is on.") }
                if reasons.contains(.background) { Text("The app is in the background.") }
            case .finished: Text("Complete")
            case .failed(let error): ProblemText(text: errorText(error))
            }
        }

        private func row(_ title: LocalizedStringKey, _ point: LossPoint) -> some View {
            let loss = point.loss.formatted(.number.precision(.fractionLength(3)))
            return LabeledContent(title) {
                Text(verbatim: "\(point.iteration.formatted()): \(loss)")
            }
        }
    }

    /// A run on this device, with its actions.
    private struct RunRow: View {
        let chat: ChatModel
        let training: TrainingModel
        let run: TrainingRun

        var body: some View {
            HStack {
                VStack(alignment: .leading) {
                    Text(run.name)
                    Text(run.model).font(.caption).foregroundStyle(.secondary)
                }
                Spacer()
                if run.isFinished {
                    Button("Use") { Task { await chat.useAdapter(of: run) } }
                } else {
                    Button("Resume") { training.resume(run) }.disabled(training.isActive)
                }
                Button("Delete", systemImage: "trash", role: .destructive) { training.delete(run) }
                    .labelStyle(.iconOnly)
                    .disabled(training.isActive && training.run?.id == run.id)
            }
            .buttonStyle(.borderless)
        }
    }
#endif
