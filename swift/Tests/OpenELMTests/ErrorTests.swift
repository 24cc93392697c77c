import Foundation
import enum OpenELMBindings.CoreError
import struct OpenELMBindings.RunDifference
import Testing

@testable import OpenELM

@Suite(.serialized) struct ErrorTests {
    @Test func onlyFilesAreReadAndWritten() async throws {
        let web = URL(string: "https://user:secret@example.com/model")!
        func name(_ body: () async throws -> Void) async -> String? {
            do {
                try await body()
                return nil
            } catch {
                guard case .invalidOption(let name, let message)? = error as? OpenELMError else {
                    return "\(error)"
                }
                #expect(message.contains("expected a file URL"))
                #expect(message.contains("found the scheme https"))
                #expect(!message.contains("secret"))
                return name
            }
        }
        let model = try await LanguageModel(folder: tales)
        let output = FileManager.default.temporaryDirectory.appending(path: "never-written")
        #expect(await name { _ = try await LanguageModel(folder: web) } == "folder")
        #expect(
            await name {
                _ = try await LanguageModel(folder: tales, options: .init(tokenizer: web))
            } == "tokenizer")
        #expect(await name { try await model.addAdapter("a", folder: web) } == "folder")
        #expect(await name { _ = try Memory.estimatedMemory(of: web) } == "folder")
        #expect(await name { try await LanguageModel.convert(web, to: output) } == "source")
        #expect(await name { try await LanguageModel.convert(tales, to: web) } == "target")
        #expect(
            await name {
                var options = ConvertOptions()
                options.adapter = web
                try await LanguageModel.convert(tales, to: output, options: options)
            } == "adapter")
        for (data, folder, expected) in [(web, output, "data"), (tales, web, "folder")] {
            #expect(
                await name {
                    for try await _ in model.finetune(on: data, savingTo: folder) {}
                } == expected)
        }
        #expect(!FileManager.default.fileExists(atPath: output.path))
    }

    @Test func namesInvalidInputs() async throws {
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
                _ = try await model.generate(prompt, options: options)
                return nil
            } catch { return error as? OpenELMError }
        }
        func option(_ error: OpenELMError?) -> String? {
            if case .invalidOption(let name, _) = error { name } else { nil }
        }
        if case .invalidOption(_, let message) = try await fails(
            "A", .init(samplingMode: .random(probabilityThreshold: 0)))
        {
            #expect(message.hasPrefix("probabilityThreshold: "))
        }
        #expect(option(try await fails("")) == "prompt")
        #expect(option(try await fails("A", .init(temperature: -1))) == "temperature")
        for (name, sampling) in [
            ("top", .random(top: -1)), ("minP", .random(minP: 2)),
            ("probabilityThreshold", .random(probabilityThreshold: 0)),
        ] as [(String, GenerationOptions.SamplingMode)] {
            #expect(option(try await fails("A", .init(samplingMode: sampling))) == name)
        }
        // Greedy mode checks the temperature, too.
        let hot = GenerationOptions(samplingMode: .greedy, temperature: -1)
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
            Issue.record("a prompt that is too long was accepted")
        }
        await #expect(throws: OpenELMError.self) {
            try await model.addAdapter("x", folder: nowhere)
        }
        #expect(throws: OpenELMError.self) { try model.decode([999_999]) }
    }

    /// Needs a library built with `inject-faults`, as swift/test.sh builds it.
    @Test func panicsAndMLXFailuresAreErrorsOfOneCall() async throws {
        let model = try await LanguageModel(folder: tales)
        await #expect(throws: OpenELMError.unexpected(message: "unexpected failure: injected")) {
            try await model.generate("<|panic|>")
        }
        let session = try LanguageModelSession(model: model, template: .plain)
        var fault = ""
        do { _ = try await session.respond(to: "<|mlx-fault|>") } catch OpenELMError.device(
            let message)
        { fault = message }
        #expect(fault.contains("command buffer"))
        #expect(try await session.transcript.isEmpty)
        let text = try await session.respond(to: "A fox", options: .init(maximumResponseTokens: 4))
        #expect(!text.content.isEmpty)
    }

    @Test func unloadedModelThrows() async throws {
        let model = try await LanguageModel(folder: tales)
        try await model.unload()
        try await model.unload()
        await #expect(throws: OpenELMError.unloaded) { try await model.generate("A fox") }
    }

    @Test func estimatesMemoryBeforeLoading() throws {
        let bytes = try Memory.estimatedMemory(of: tales)
        #expect(bytes > 4 * 2_497_344 && bytes < 40_000_000)
        let short = try Memory.estimatedMemory(
            of: tales, options: .init(dtype: .bfloat16), context: 64)
        #expect(short < bytes / 2 + 1_000_000)
    }

    /// All cases of the library's errors, including cases that no test can cause.
    @Test func everyErrorHasAMessageAndAdvice() throws {
        let path = "/models/tales"
        let message = "it failed"
        let difference = OpenELMBindings.RunDifference(
            option: "batch_size", expected: "4", found: "2")
        #expect(OpenELM.RunDifference(difference).description == "batchSize: expected 4, found 2")
        let pairs: [(CoreError, OpenELMError)] = [
            (.Io(path: path, message: message), .io(path: path, message: message)),
            (
                .MissingFile(path: path, message: message),
                .missingFile(path: path, message: message)
            ),
            (
                .InvalidConfig(path: path, message: message),
                .invalidConfig(path: path, message: message)
            ),
            (
                .InvalidCheckpoint(path: path, message: message),
                .invalidCheckpoint(path: path, message: message)
            ),
            (
                .InvalidTokenizer(path: path, message: message),
                .invalidTokenizer(path: path, message: message)
            ),
            (
                .InvalidData(path: path, line: 3, message: message),
                .invalidData(path: path, line: 3, message: message)
            ),
            (
                .InvalidAdapter(path: path, message: message),
                .invalidAdapter(path: path, message: message)
            ),
            (
                .InvalidOption(option: "dtype", message: "dtype float7: unknown"),
                .invalidOption(name: "dtype", message: "dtype float7: unknown")
            ),
            (
                .InvalidOption(option: "top_p", message: "top_p: expected less"),
                .invalidOption(
                    name: "probabilityThreshold", message: "probabilityThreshold: expected less")
            ),
            (
                .InvalidOption(option: "batch_size", message: "batch_size: expected more"),
                .invalidOption(name: "batchSize", message: "batchSize: expected more")
            ),
            (
                .PromptTooLong(tokens: 600, context: 512, message: message),
                .exceededContextWindowSize(tokens: 600, context: 512)
            ),
            (
                .Diverged(iteration: 3, loss: .infinity, message: message),
                .diverged(iteration: 3, loss: .infinity)
            ),
            (.Distributed(message: message), .distributed(message: message)),
            (
                .Destination(path: path, message: message),
                .destination(path: path, message: message)
            ),
            (
                .OtherRun(path: path, differences: [difference], message: message),
                .otherRun(path: path, differences: [OpenELM.RunDifference(difference)])
            ),
            (
                .Verification(path: path, message: message),
                .verification(path: path, message: message)
            ),
            (.Device(message: message), .device(message: message)),
            (.Busy(message: message), .concurrentRequests),
            (.Unloaded(message: message), .unloaded),
            (.Unexpected(message: message), .unexpected(message: message)),
            (.Unusable(message: message), .unusable(message: message)),
        ]
        for (error, expected) in pairs {
            let found = OpenELMError.from(error) as? OpenELMError
            #expect(found == expected)
            #expect(found?.errorDescription?.isEmpty == false)
            #expect(found.map { "\($0)" } == found?.errorDescription)
            #expect(found?.recoverySuggestion?.isEmpty == false)
        }
        #expect(OpenELMError.from(CoreError.Cancelled(message: message)) is CancellationError)
    }
}
