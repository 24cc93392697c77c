// A command-line tool: openelm-swift MODEL PROMPT [TOKENS]
import Foundation
import OpenELM

let arguments = CommandLine.arguments.dropFirst()
guard arguments.count >= 2, let folder = arguments.first else {
    print("usage: openelm-swift MODEL PROMPT [TOKENS]")
    exit(2)
}
do {
    let model = try await LanguageModel(folder: URL(filePath: folder))
    let prompt = arguments[arguments.startIndex + 1]
    let tokens = arguments.count > 2 ? Int(arguments[arguments.startIndex + 2]) ?? 256 : 256
    let options = GenerationOptions(maximumResponseTokens: tokens)
    for try await event in model.streamGenerate(prompt, options: options).withEvents() {
        switch event {
        case .prefill: break
        case .token(let token): print(token.text, terminator: "")
        case .finished(_, let statistics):
            let rate = Int(statistics.tokensPerSecond)
            print("\n[\(statistics.generatedTokens) tokens, \(rate) tokens/s]")
        }
    }
} catch {
    let error = error as NSError
    let advice = error.localizedRecoverySuggestion ?? ""
    print("openelm-swift: \(error.localizedDescription). \(advice)")
    exit(1)
}
