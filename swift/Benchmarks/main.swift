// Token throughput in a Swift program: openelm-swift-bench MODEL PROMPT TOKENS, one JSON object.
// The time is measured from the first received token to the last, without output in between.
import Foundation
import OpenELM

struct Measured: Encodable {
    let generated_tokens: Int
    let decode_tokens_per_second: Double
    /// Measured by the library.
    let core_tokens_per_second: Double
}

let arguments = Array(CommandLine.arguments.dropFirst())
guard arguments.count == 3, let tokens = Int(arguments[2]), tokens > 1 else {
    print("usage: openelm-swift-bench MODEL PROMPT TOKENS")
    exit(2)
}
do {
    let model = try await LanguageModel(
        folder: URL(filePath: arguments[0]), options: .init(dtype: .float32))
    let options = GenerationOptions(maximumResponseTokens: tokens, ignoreEos: true)
    let clock = ContinuousClock()
    var (first, last, core) = (clock.now, clock.now, 0.0)
    var count = 0
    for try await event in model.streamGenerate(arguments[1], options: options).withEvents() {
        switch event {
        case .prefill: break
        case .token:
            last = clock.now
            if count == 0 { first = last }
            count += 1
        case .finished(_, let statistics): core = statistics.decodeSeconds
        }
    }
    let measured = Measured(
        generated_tokens: count,
        decode_tokens_per_second: Double(count - 1) / ((last - first) / .seconds(1)),
        core_tokens_per_second: Double(count - 1) / core)
    print(String(decoding: try JSONEncoder().encode(measured), as: UTF8.self))
} catch {
    print("openelm-swift-bench: \(error.localizedDescription)")
    exit(1)
}
