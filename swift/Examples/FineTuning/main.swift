// Fine-tunes a model and generates text: openelm-finetune MODEL DATA ADAPTER PROMPT [STEPS]
import Foundation
import OpenELM

let arguments = Array(CommandLine.arguments.dropFirst())
guard (4...5).contains(arguments.count) else {
    print("usage: openelm-finetune MODEL DATA ADAPTER PROMPT [STEPS]")
    exit(2)
}
let (model, data, adapter) = (
    URL(filePath: arguments[0]), URL(filePath: arguments[1]), URL(filePath: arguments[2])
)
do {
    let model = try await LanguageModel(folder: model, options: LoadOptions(training: true))
    var options = FinetuneOptions()
    options.iters = arguments.count > 4 ? Int(arguments[4]) ?? 100 : 100
    options.learningRate = 1e-4
    options.lrSchedule = .cosine
    options.stepsPerEval = 25
    for try await event in model.finetune(on: data, savingTo: adapter, options: options) {
        switch event {
        case .step(let step):
            if step.iteration % 10 == 0 {
                print("\(step.iteration): loss \(step.loss), \(Int(step.tokensPerSecond)) tokens/s")
            }
        case .validation(let iteration, let loss, let isBest):
            print("\(iteration): validation loss \(loss)\(isBest ? ", best so far" : "")")
        case .saved: break
        case .finished(let iteration, let reason, _): print("\(iteration): ended, \(reason)")
        }
    }
    try await model.addAdapter("mine", folder: adapter)
    let prompt = arguments[3]
    print(prompt, terminator: "")
    for try await text in model.streamGenerate(prompt) { print(text, terminator: "") }
    print()
} catch {
    let error = error as NSError
    let advice = error.localizedRecoverySuggestion ?? ""
    print("openelm-finetune: \(error.localizedDescription). \(advice)")
    exit(1)
}
