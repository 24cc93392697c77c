// Token throughput in a Swift program: openelm-swift-bench MODEL PROMPT TOKENS [TEXTS], one JSON
// object. The time is measured from the first received token to the last, without output in between.
// With TEXTS, that many texts are generated at once, after one of them alone.
import Foundation
import OpenELM

struct Measured: Encodable {
    let generated_tokens: Int
    let decode_tokens_per_second: Double
    /// Measured by the library.
    let core_tokens_per_second: Double
    /// Tokens of all texts per second, of several texts at once, with their prompts.
    var together_tokens_per_second: Double?
    /// The same for one text.
    var alone_tokens_per_second: Double?
}

/// Tokens per second of `texts` texts at once.
func rate(_ model: LanguageModel, _ prompt: String, _ tokens: Int, texts: Int) async throws
    -> Double
{
    let options = GenerationOptions(maximumResponseTokens: tokens, ignoreEos: true)
    let start = ContinuousClock().now
    let prompts = (0..<texts).map { "\(prompt) \($0)" }
    let found = try await model.generate(prompts, options: options, concurrency: texts)
    let count = found.map(\.stats.generatedTokens).reduce(0, +)
    return Double(count) / ((ContinuousClock().now - start) / .seconds(1))
}

let arguments = Array(CommandLine.arguments.dropFirst())
guard (3...4).contains(arguments.count), let tokens = Int(arguments[2]), tokens > 1 else {
    print("usage: openelm-swift-bench MODEL PROMPT TOKENS [TEXTS]")
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
    var measured = Measured(
        generated_tokens: count,
        decode_tokens_per_second: Double(count - 1) / ((last - first) / .seconds(1)),
        core_tokens_per_second: Double(count - 1) / core)
    if arguments.count == 4, let texts = Int(arguments[3]) {
        let prompt = arguments[1]
        measured.alone_tokens_per_second = try await rate(model, prompt, tokens, texts: 1)
        measured.together_tokens_per_second = try await rate(model, prompt, tokens, texts: texts)
    }
    print(String(decoding: try JSONEncoder().encode(measured), as: UTF8.self))
} catch {
    print("openelm-swift-bench: \(error.localizedDescription)")
    exit(1)
}
