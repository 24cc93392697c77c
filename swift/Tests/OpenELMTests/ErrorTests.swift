import Foundation
import enum OpenELMBindings.EngineError
import Testing

@testable import OpenELM

@Suite(.serialized) struct ErrorTests {
    @Test func badInputsAreNamed() async throws {
        let nowhere = URL(filePath: "/nowhere")
        await #expect {
            _ = try await LanguageModel(folder: nowhere)
        } throws: { error in
            guard let error = error as? OpenELMError else { return false }
            return error.errorDescription?.contains("/nowhere") == true
                && error.recoverySuggestion?.isEmpty == false
        }
        let model = try await LanguageModel(folder: tales)
        func fails(
            _ prompt: String, _ options: GenerationOptions = .init()
        ) async throws -> OpenELMError? {
            do {
                _ = try await model.complete(prompt, options: options)
                return nil
            } catch { return error as? OpenELMError }
        }
        func option(_ error: OpenELMError?) -> String? {
            if case .invalidOption(let name, _) = error { name } else { nil }
        }
        #expect(option(try await fails("")) == "prompt")
        #expect(option(try await fails("A", .init(temperature: -1))) == "temperature")
        for (name, sampling) in [
            ("top", .random(top: -1)), ("minP", .random(minP: 2)),
            ("probabilityThreshold", .random(probabilityThreshold: 0)),
        ] as [(String, GenerationOptions.SamplingMode)] {
            #expect(option(try await fails("A", .init(sampling: sampling))) == name)
        }
        // Of a text that draws nothing too.
        let hot = GenerationOptions(sampling: .greedy, temperature: -1)
        #expect(option(try await fails("A", hot)) == "temperature")
        #expect(option(try await fails("A", .init(repetitionPenalty: 0))) == "repetitionPenalty")
        #expect(option(try await fails("A", .init(prefillChunk: 0))) == "prefillChunk")
        #expect(
            option(try await fails("A", .init(maximumResponseTokens: -1)))
                == "maximumResponseTokens")
        let long = String(repeating: " and then", count: 600)
        if case .exceededContextWindowSize(let tokens, 512) = try await fails(long) {
            #expect(tokens > 512)
        } else {
            Issue.record("a prompt that is too long was taken")
        }
        await #expect(throws: OpenELMError.self) {
            try await model.addAdapter("x", folder: nowhere)
        }
        #expect(throws: OpenELMError.self) { try model.decode([999_999]) }
    }

    /// Needs a library built with `inject-faults`, as swift/test.sh builds it.
    @Test func aPanicAndAFaultOfMLXAreErrorsAndTheRestGoesOn() async throws {
        let model = try await LanguageModel(folder: tales)
        await #expect(throws: OpenELMError.unexpected(message: "unexpected failure: injected")) {
            try await model.complete("<|panic|>")
        }
        let session = try LanguageModelSession(model: model, template: .plain)
        var fault = ""
        do { _ = try await session.respond(to: "<|mlx-fault|>") } catch OpenELMError.device(
            let message)
        { fault = message }
        #expect(fault.contains("matmul"))
        #expect(try await session.transcript.isEmpty)
        let text = try await session.respond(to: "A fox", options: .init(maximumResponseTokens: 4))
        #expect(!text.content.isEmpty)
    }

    @Test func anUnloadedModelSaysSo() async throws {
        let model = try await LanguageModel(folder: tales)
        try await model.unload()
        try await model.unload()
        await #expect(throws: OpenELMError.unloaded) { try await model.complete("A fox") }
    }

    @Test func memoryIsEstimatedBeforeLoading() throws {
        let bytes = try Memory.estimatedMemory(of: tales)
        #expect(bytes > 4 * 2_497_344 && bytes < 40_000_000)
        let short = try Memory.estimatedMemory(
            of: tales, configuration: .init(dtype: "bfloat16"), context: 64)
        #expect(short < bytes / 2 + 1_000_000)
    }

    /// The library's errors as this package's, those that no test can bring about among them.
    @Test func everyErrorSaysWhatHappenedAndWhatToDo() throws {
        let tensor = "transformer.norm.weight"
        let invalid = OpenELMError.invalidModel(path: "/models/tales", message: "it failed")
        let path = "/models/tales"
        let message = "it failed"
        let pairs: [(EngineError, OpenELMError)] = [
            (.Io(path: path, message: message), .fileAccess(path: path, message: message)),
            (
                .MissingFile(path: path, message: message),
                .missingFile(path: path, message: message)
            ),
            (.Config(path: path, key: "model_dim", message: message), invalid),
            (.Checkpoint(path: path, message: message), invalid),
            (.MissingTensor(path: path, name: tensor, message: message), invalid),
            (.UnexpectedTensor(path: path, name: tensor, message: message), invalid),
            (
                .TensorShape(
                    path: path, name: tensor, expected: [128], found: [64], message: message),
                invalid
            ),
            (.TensorDtype(path: path, name: tensor, found: "I16", message: message), invalid),
            (
                .Dtype(dtype: "float7", message: message),
                .invalidOption(name: "dtype", message: message)
            ),
            (
                .Tokenizer(path: path, message: message),
                .invalidTokenizer(path: path, message: message)
            ),
            (
                .Data(path: path, line: 3, message: message),
                .invalidData(path: path, line: 3, message: message)
            ),
            (
                .Option(option: "top_p", message: message),
                .invalidOption(name: "probabilityThreshold", message: message)
            ),
            (
                .Option(option: "batch_size", message: message),
                .invalidOption(name: "batchSize", message: message)
            ),
            (
                .PromptTooLong(tokens: 600, context: 512, message: message),
                .exceededContextWindowSize(tokens: 600, context: 512)
            ),
            (
                .Adapter(path: path, message: message),
                .invalidAdapter(path: path, message: message)
            ),
            (.Target(path: path, message: message), .targetExists(path: path, message: message)),
            (.Busy(message: message), .concurrentRequests),
            (.Unloaded(message: message), .unloaded),
            (.Panicked(message: message), .unexpected(message: message)),
            (
                .Verification(path: path, message: message),
                .verificationFailed(path: path, message: message)
            ),
            (
                .Diverged(iteration: 3, loss: .infinity, message: message),
                .diverged(iteration: 3, loss: .infinity)
            ),
            (.Mlx(message: message), .device(message: message)),
            (.Unusable(message: message), .unusable(message: message)),
        ]
        for (error, expected) in pairs {
            let found = OpenELMError.from(error) as? OpenELMError
            #expect(found == expected)
            #expect(found?.errorDescription?.isEmpty == false)
            #expect(found?.recoverySuggestion?.isEmpty == false)
        }
        #expect(OpenELMError.from(EngineError.Cancelled(message: message)) is CancellationError)
    }
}
