#if canImport(SwiftUI)
    import SwiftUI

    /// The options of answers and of new conversations.
    struct SettingsView: View {
        @Bindable var model: SettingsModel

        var body: some View {
            Form {
                if let problem = model.problem { ProblemText(text: problem) }
                Section("Answers") {
                    number("Temperature", $model.settings.temperature, in: 0...2)
                    number("Top-p", $model.settings.topP, in: 0.05...1)
                        .disabled(model.settings.temperature == 0)
                    number("Repetition penalty", $model.settings.repetitionPenalty, in: 1...2)
                    Stepper(value: $model.settings.maximumResponseTokens, in: 16...2048, step: 16) {
                        LabeledContent("Maximum tokens") {
                            Text(model.settings.maximumResponseTokens.formatted())
                        }
                    }
                }
                Section("New conversations") {
                    TextField("Instructions", text: $model.settings.instructions, axis: .vertical)
                    Picker("Template", selection: $model.settings.template) {
                        ForEach(TemplateChoice.allCases, id: \.self) { template in
                            Text(name(template)).tag(template)
                        }
                    }
                }
                Button("Restore the defaults") { model.reset() }
            }
            .navigationTitle("Settings")
        }

        private func number(
            _ title: LocalizedStringKey, _ value: Binding<Double>, in range: ClosedRange<Double>
        ) -> some View {
            VStack(alignment: .leading) {
                LabeledContent(title) {
                    Text(value.wrappedValue.formatted(.number.precision(.fractionLength(2))))
                }
                Slider(value: value, in: range, step: 0.05) { Text(title) }
            }
        }

        private func name(_ template: TemplateChoice) -> LocalizedStringKey {
            switch template {
            case .automatic: "By the model's name"
            case .openELMInstruct: "OpenELM-Instruct"
            case .instruction: "Instruction and response"
            case .plain: "None"
            }
        }
    }
#endif
