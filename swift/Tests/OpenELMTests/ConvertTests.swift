import Foundation
import OpenELM
import Testing

@Suite(.serialized) struct ConvertTests {
    @Test func quantizedModelIsSmallerAndGenerates() async throws {
        let folder = try Folder()
        let target = folder.url.appending(path: "small")
        var options = ConvertOptions()
        options.quantize = .init(bits: 8, groupSize: 32)
        options.verify = true
        let progress = ProgressValues()
        let report = try await LanguageModel.convert(tales, to: target, options: options) {
            progress.append($0)
        }
        #expect(progress.all.last == 1 && progress.all == progress.all.sorted())
        #expect(report.parameterCount == 2_497_344)
        #expect(report.bytes < report.sourceBytes)
        #expect((8...10).contains(report.bitsPerWeight), "\(report)")
        #expect(report.meanKl ?? 1 < 0.01, "\(report)")
        #expect(report.top1Agreement ?? 0 > 0.9, "\(report)")
        let model = try await LanguageModel(folder: target)
        let short = GenerationOptions(maximumResponseTokens: 8)
        #expect(try await model.generate("Once upon a", options: short) != "")

        // The second time, the target exists.
        await #expect(throws: OpenELMError.self) {
            try await LanguageModel.convert(tales, to: target, options: options)
        }
        options.force = true
        options.quantize = .init(mode: .mxfp4)
        options.verify = false
        let smaller = try await LanguageModel.convert(tales, to: target, options: options)
        #expect(smaller.bytes < report.bytes)
    }

    @Test func everyFormatGivesTheSameText() async throws {
        let folder = try Folder()
        let model = try await LanguageModel(folder: tales)
        let short = GenerationOptions(maximumResponseTokens: 16)
        let text = try await model.generate("The queen", options: short)
        for format in [.mlx, .huggingFace] as [ConvertOptions.Format] {
            var options = ConvertOptions()
            options.format = format
            let target = folder.url.appending(path: UUID().uuidString)
            try await LanguageModel.convert(tales, to: target, options: options)
            let converted = try await LanguageModel(folder: target)
            #expect(try await converted.generate("The queen", options: short) == text)
        }
        var options = ConvertOptions()
        options.format = .gguf(.q8)
        let file = folder.url.appending(path: "tales.gguf")
        let report = try await LanguageModel.convert(tales, to: file, options: options)
        #expect(try Data(contentsOf: report.target).prefix(4) == Data("GGUF".utf8))
    }

    @Test func rejectsInvalidInputsWithoutOutput() async throws {
        let folder = try Folder()
        let target = folder.url.appending(path: "target")
        func fails(_ source: URL, _ change: (inout ConvertOptions) -> Void = { _ in }) async
            -> OpenELMError?
        {
            var options = ConvertOptions()
            change(&options)
            do {
                try await LanguageModel.convert(source, to: target, options: options)
                return nil
            } catch { return error as? OpenELMError }
        }
        let errors = [
            await fails(URL(filePath: "/nowhere")),
            await fails(tales) { $0.quantize = .init(bits: 7) },
            await fails(tales) { $0.quantize = .init(bits: -1) },
            await fails(tales) { $0.quantize = .init(recipe: "none") },
            await fails(tales) { $0.adapter = URL(filePath: "/nowhere") },
        ]
        #expect(errors.allSatisfy { $0?.errorDescription?.isEmpty == false }, "\(errors)")
        #expect(!FileManager.default.fileExists(atPath: target.path))

        let source = tales
        let task = Task {
            try await LanguageModel.convert(source, to: target)
        }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(!FileManager.default.fileExists(atPath: target.path))
    }

    /// 99,840 exceeds float16; verification finds infinity in the result.
    @Test func failedVerificationKeepsNoOutput() async throws {
        let copy = try ModelCopy()
        let weights = copy.url.appending(path: "model.safetensors")
        var bytes = try Data(contentsOf: weights)
        let header = bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        // The first number of the first tensor, in bfloat16.
        bytes.replaceSubrange(8 + header..<10 + header, with: [0xC3, 0x47])
        try bytes.write(to: weights)
        let folder = try Folder()
        let target = folder.url.appending(path: "half")
        var options = ConvertOptions()
        options.dtype = .float16
        options.verify = true
        var failure: OpenELMError?
        do { try await LanguageModel.convert(copy.url, to: target, options: options) } catch {
            failure = error as? OpenELMError
        }
        guard case .verification(let path, let message) = failure else {
            Issue.record("\(failure as Any)")
            return
        }
        #expect(path == target.path)
        #expect(message.contains("found inf") && message.hasSuffix("nothing was kept"))
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.url.path).isEmpty)
    }
}
