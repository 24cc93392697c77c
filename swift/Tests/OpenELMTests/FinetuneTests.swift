import Foundation
import OpenELM
import Testing

@Suite(.serialized) struct FinetuneTests {
    static var options: FinetuneOptions {
        var options = FinetuneOptions()
        options.iters = 12
        options.batchSize = 2
        options.learningRate = 3e-4
        options.stepsPerEval = 6
        options.saveEvery = 5
        options.seed = 3
        return options
    }

    @Test func trainsAndAppliesAnAdapter() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales, options: LoadOptions(training: true))
        let target = folder.url.appending(path: "adapter")
        var losses: [Float] = []
        var validated: [Double] = []
        var saved: [Int] = []
        var end: FinetuneEvent?
        for try await event in model.finetune(on: data, savingTo: target, options: Self.options) {
            switch event {
            case .step(let step):
                losses.append(step.loss)
                #expect(step.iteration == losses.count)
                #expect(step.targets > 0 && step.peakBytes > 0)
            case .validation(_, let loss, _): validated.append(loss)
            case .saved(let iteration): saved.append(iteration)
            case .finished: end = event
            }
        }
        #expect(losses.count == 12)
        #expect(losses[11] < losses[0] - 0.5, "\(losses)")
        #expect(validated.last ?? 9 < validated.first ?? 0, "\(validated)")
        #expect(saved.last == 12)
        guard case .finished(12, .iterations, let best) = end else {
            Issue.record("ended with \(String(describing: end))")
            return
        }
        #expect(best?.loss == validated.min())

        let short = GenerationOptions(maximumResponseTokens: 16)
        let before = try await model.generate("The fox", options: short)
        try await model.addAdapter("mine", folder: target)
        let after = try await model.generate("The fox", options: short)
        #expect(after != before)
        try await model.setAdapters([Adapter("mine", strength: 0)])
        #expect(try await model.generate("The fox", options: short) == before)
        try await model.setAdapters([Adapter("mine")])
        #expect(try await model.generate("The fox", options: short) == after)
        #expect(try await model.adapters == ["mine"])
        try await model.removeAdapter("mine")
        #expect(try await model.generate("The fox", options: short) == before)
        #expect(try await model.adapters.isEmpty)

        // Fused into a new model.
        var conversion = ConvertOptions()
        conversion.adapter = target
        let fused = folder.url.appending(path: "fused")
        try await LanguageModel.convert(tales, to: fused, options: conversion)
        let own = try await LanguageModel(folder: fused)
        #expect(try await own.generate("The fox", options: short).isEmpty == false)
    }

    @Test func resumedRunEndsWithTheSameBytes() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let whole = folder.url.appending(path: "whole")
        for try await _ in model.finetune(on: data, savingTo: whole, options: Self.options) {}

        // Ended by `break`, then by cancelling the task, then run to the end.
        let stopped = folder.url.appending(path: "stopped")
        for try await event in model.finetune(on: data, savingTo: stopped, options: Self.options) {
            if case .step(let step) = event, step.iteration == 3 { break }
        }
        // The model still generates.
        #expect(try await model.generate("A fox", options: .init(maximumResponseTokens: 2)) != "")
        let (began, begin) = AsyncStream.makeStream(of: Void.self)
        let run = model.finetune(
            on: data, savingTo: stopped, options: Self.options, resume: true)
        let task = Task {
            for try await event in run {
                if case .step(let step) = event, step.iteration == 8 { begin.yield() }
            }
        }
        for await _ in began { break }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        var first: Int?
        let rest = model.finetune(
            on: data, savingTo: stopped, options: Self.options, resume: true)
        for try await event in rest {
            if case .step(let step) = event, first == nil { first = step.iteration }
        }
        // At least step 8 was complete, and up to three more.
        #expect((9...12).contains(first ?? 0), "continued with \(String(describing: first))")
        let file = "adapters.safetensors"
        #expect(
            try Data(contentsOf: whole.appending(path: file))
                == Data(contentsOf: stopped.appending(path: file)))
    }

    @Test func rejectsResumeWithOtherOptions() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let target = folder.url.appending(path: "adapter")
        for try await _ in model.finetune(on: data, savingTo: target, options: Self.options) {}
        var other = Self.options
        other.batchSize = 1
        other.numLayers = 2
        do {
            let run = model.finetune(on: data, savingTo: target, options: other, resume: true)
            for try await _ in run {}
            Issue.record("the run was resumed")
        } catch OpenELMError.otherRun(_, let differences) {
            #expect(Set(differences.map(\.option)).isSuperset(of: ["batchSize", "numLayers"]))
        }
        // A new run does not replace the old one.
        do {
            for try await _ in model.finetune(on: data, savingTo: target, options: other) {}
            Issue.record("the run was replaced")
        } catch OpenELMError.destination(let path, _) {
            #expect(path.hasPrefix(target.path))
        }
        // The checkpoint interval may change.
        other = Self.options
        other.saveEvery = 1
        other.iters = 13
        for try await _ in model.finetune(on: data, savingTo: target, options: other, resume: true)
        {}
    }

    /// The first loss depends on the model alone; later ones depend on the optimizer.
    @Test func optimizersGiveDifferentLosses() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        var losses: Set<Float> = []
        for optimizer in [.adam, .sgd, .lion, .adafactor] as [OptimizerKind] {
            var options = Self.options
            options.optimizer = optimizer
            options.iters = 3
            let target = folder.url.appending(path: "\(optimizer)")
            for try await event in model.finetune(on: data, savingTo: target, options: options) {
                if case .step(let step) = event, step.iteration == 3 { losses.insert(step.loss) }
            }
        }
        #expect(losses.count == 4, "\(losses)")
    }

    @Test func namesInvalidDataAndOptions() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        func fails(_ data: URL, _ change: (inout FinetuneOptions) -> Void = { _ in }) async
            -> OpenELMError?
        {
            var options = Self.options
            change(&options)
            let target = folder.url.appending(path: UUID().uuidString)
            do {
                for try await _ in model.finetune(on: data, savingTo: target, options: options) {}
                return nil
            } catch { return error as? OpenELMError }
        }
        func option(_ error: OpenELMError?) -> String? {
            if case .invalidOption(let name, _) = error { name } else { nil }
        }
        #expect(option(await fails(data) { $0.rank = -1 }) == "rank")
        #expect(option(await fails(data) { $0.rank = 0 }) == "rank")
        #expect(option(await fails(data) { $0.batchSize = 0 }) == "batchSize")
        #expect(option(await fails(data) { $0.iters = 0 }) == "iters")
        #expect(option(await fails(data) { $0.dropout = 1 }) == "dropout")
        #expect(option(await fails(data) { $0.maxSeqLength = 1 }) == "maxSeqLength")
        #expect(option(await fails(data) { $0.keys = ["no_such"] }) == "keys")
        let missing = await fails(URL(filePath: "/nowhere"))
        #expect(missing?.errorDescription?.contains("/nowhere") == true, "\(missing as Any)")
        let bad = folder.url.appending(path: "bad")
        try FileManager.default.createDirectory(at: bad, withIntermediateDirectories: true)
        let rows = bad.appending(path: "train.jsonl")
        try Data("{\"text\": \"A fox.\"}\n{\"text\": \n".utf8).write(to: rows)
        if case .invalidData(let path, 2, _) = await fails(bad) {
            #expect(path.hasSuffix("train.jsonl"))
        } else {
            Issue.record("malformed JSON was accepted")
        }
        try Data().write(to: rows)
        #expect(await fails(bad) != nil)
        if case .diverged(let iteration, _) = await fails(data, { $0.learningRate = 1e30 }) {
            #expect(iteration > 0)
        } else {
            Issue.record("a learning rate of 1e30 was accepted")
        }
        // The model is unchanged.
        #expect(try await model.generate("A fox", options: .init(maximumResponseTokens: 2)) != "")
    }

    @Test func pausesAndContinuesARun() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let target = folder.url.appending(path: "adapter")
        var events = model.finetune(on: data, savingTo: target, options: Self.options)
            .makeAsyncIterator()
        _ = try await events.next()
        #expect(try await Memory.pause())
        try Memory.resume()
        var steps = 0
        while let event = try await events.next() {
            if case .step = event { steps += 1 }
        }
        #expect(steps >= 11)
    }
}

/// A temporary folder, removed with its last reference.
final class Folder: Sendable {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "openelm-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// Training rows and two validation rows.
    func rows() throws -> URL {
        let data = url.appending(path: "data")
        try FileManager.default.createDirectory(at: data, withIntermediateDirectories: true)
        let colours = ["red", "green", "blue", "white", "black", "brown", "grey", "golden"]
        let lines = colours.map { colour in
            "{\"text\": \"The fox found a \(colour) apple and gave it to the king of the hill.\"}\n"
        }
        try Data(lines.joined().utf8).write(to: data.appending(path: "train.jsonl"))
        try Data(lines.suffix(2).joined().utf8).write(to: data.appending(path: "valid.jsonl"))
        return data
    }
}
