import Foundation
import OpenELM
import Testing

/// The end of a fine-tuning by its reader, and runs that would mix their files.
@Suite(.serialized) struct FinetuneStopTests {
    private static let adapter = "adapters.safetensors"

    /// Reads events and cancels its own task after `count` events. Returns the last step and event.
    private static func read(
        _ events: FinetuneEvents, cancelAfter count: Int?
    ) async throws -> (step: Int?, first: Int?, last: FinetuneEvent?) {
        let task = Task { () -> (Int?, Int?, FinetuneEvent?) in
            var step: Int?
            var first: Int?
            var last: FinetuneEvent?
            var events = events.makeAsyncIterator()
            if count == 0 { withUnsafeCurrentTask { $0?.cancel() } }
            var read = 0
            do {
                while let event = try await events.next() {
                    last = event
                    if case .step(let one) = event {
                        step = one.iteration
                        first = first ?? one.iteration
                    }
                    read += 1
                    if read == count { withUnsafeCurrentTask { $0?.cancel() } }
                }
                #expect(read < count ?? .max, "the cancelled stream ended without an error")
            } catch is CancellationError {
                #expect(read >= count ?? .max)
            }
            return (step, first, last)
        }
        return try await task.value
    }

    @Test func stoppedLoopEndsAfterTheSave() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        var options = FinetuneTests.options
        options.saveEvery = 1000
        let whole = folder.url.appending(path: "whole")
        for try await _ in model.finetune(on: data, savingTo: whole, options: options) {}
        let bytes = try Data(contentsOf: whole.appending(path: Self.adapter))
        // A run of 12 steps has 3 validations, a save and an end.
        var random = SystemRandomNumberGenerator()
        for run in 0..<3 {
            let target = folder.url.appending(path: "stopped-\(run)")
            var completed = 0
            var stops: [Int] = []
            while completed < 12 {
                let count = Int.random(in: 1...6, using: &random)
                stops.append(count)
                let events = model.finetune(
                    on: data, savingTo: target, options: options, resume: true)
                let read = try await Self.read(events, cancelAfter: count)
                // At once after the end of the loop.
                let saved = try await LanguageModel.resumableFineTuning(at: target)
                if let first = read.first { #expect(first == completed + 1, "stops \(stops)") }
                completed = read.step ?? completed
                #expect(saved?.iteration == completed, "stops \(stops)")
                guard case .finished(completed, let reason, _) = read.last else {
                    Issue.record("stops \(stops): ended with \(String(describing: read.last))")
                    return
                }
                #expect(reason == (completed < 12 ? .cancelled : .iterations), "stops \(stops)")
            }
            #expect(
                try Data(contentsOf: target.appending(path: Self.adapter)) == bytes,
                "stops \(stops)")
        }
    }

    /// As above, at times that do not depend on the events.
    @Test func loopStoppedFromOutsideEndsAfterTheSave() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        var options = FinetuneTests.options
        options.saveEvery = 1000
        for run in 0..<4 {
            let target = folder.url.appending(path: "run-\(run)")
            let events = model.finetune(
                on: data, savingTo: target, options: options, resume: true)
            let (began, begin) = AsyncStream.makeStream(of: Void.self)
            let task = Task { () -> Int in
                var step = 0
                do {
                    for try await event in events {
                        begin.yield()
                        if case .step(let one) = event { step = one.iteration }
                    }
                } catch is CancellationError {}
                return step
            }
            for await _ in began { break }
            for _ in 0..<Int.random(in: 0...2000) { await Task.yield() }
            task.cancel()
            let step = try await task.value
            let saved = try await LanguageModel.resumableFineTuning(at: target)
            #expect(saved?.iteration == step)
        }
    }

    @Test func cancelledTaskStartsNoRun() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let target = folder.url.appending(path: "adapter")
        let events = model.finetune(on: data, savingTo: target, options: FinetuneTests.options)
        let read = try await Self.read(events, cancelAfter: 0)
        #expect(read.last == nil)
        #expect(!FileManager.default.fileExists(atPath: target.path))
        #expect(try await LanguageModel.resumableFineTuning(at: target) == nil)
    }

    @Test func statesOfRunsAreRead() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let target = folder.url.appending(path: "adapter")
        var options = FinetuneTests.options
        options.gradAccumulationSteps = 2
        var best: FinetuneEvent.BestIteration?
        var trained = 0
        for try await event in model.finetune(on: data, savingTo: target, options: options) {
            if case .step(let step) = event { trained = step.trainedTokens }
            if case .finished(_, _, let last) = event { best = last }
        }
        let saved = try await LanguageModel.resumableFineTuning(at: target)
        #expect(saved?.iteration == 12 && saved?.trainedTokens == trained && trained > 0)
        #expect(saved?.batchSize == 2 && saved?.gradAccumulationSteps == 2)
        #expect(saved?.best == best && best != nil)

        for folder in [folder.url, tales, URL(filePath: "/nowhere")] {
            #expect(try await LanguageModel.resumableFineTuning(at: folder) == nil)
        }
        await #expect(throws: OpenELMError.self) {
            try await LanguageModel.resumableFineTuning(at: URL(string: "https://example.com/a")!)
        }
        let state = target.appending(path: "training_state.safetensors")
        let whole = try Data(contentsOf: state)
        for bytes in [
            Data(), whole.prefix(4), whole.prefix(100), Data(repeating: 255, count: 64),
            Data([2, 0, 0, 0, 0, 0, 0, 0]) + Data("{}".utf8),
        ] {
            try bytes.write(to: state)
            do {
                _ = try await LanguageModel.resumableFineTuning(at: target)
                Issue.record("\(bytes.count) bytes were accepted")
            } catch OpenELMError.invalidCheckpoint(let path, let message) {
                #expect(path == state.path && message.hasPrefix(path))
            }
        }
    }

    @Test func secondRunInAFolderIsRefused() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let model = try await LanguageModel(folder: tales)
        let other = try await LanguageModel(folder: tales)
        let target = folder.url.appending(path: "adapter")
        let link = folder.url.appending(path: "link")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: target)
        var first = model.finetune(on: data, savingTo: target, options: FinetuneTests.options)
            .makeAsyncIterator()
        _ = try await first.next()
        var saved = false
        // Before the first save and after it.
        for _ in 0..<2 {
            for (model, place, resume) in [
                (model, target, false), (model, target, true), (other, target, false),
                (other, target, true), (other, link, true), (other, link, false),
            ] {
                do {
                    let run = model.finetune(
                        on: data, savingTo: place, options: FinetuneTests.options, resume: resume)
                    for try await _ in run {}
                    Issue.record("a second run: saved \(saved), resume \(resume), \(place)")
                } catch OpenELMError.destination(_, let message) {
                    #expect(
                        message.contains("is training here") || message.contains("there is a run"),
                        "\(message)")
                }
            }
            while !saved, let event = try await first.next() {
                if case .saved = event { saved = true }
            }
        }
        // The first run is not disturbed.
        var end: FinetuneEvent?
        while let event = try await first.next() { end = event }
        guard case .finished(12, .iterations, _) = end else {
            Issue.record("ended with \(String(describing: end))")
            return
        }
        let whole = folder.url.appending(path: "whole")
        for try await _ in model.finetune(
            on: data, savingTo: whole, options: FinetuneTests.options)
        {}
        #expect(
            try Data(contentsOf: whole.appending(path: Self.adapter))
                == Data(contentsOf: target.appending(path: Self.adapter)))
    }

    @Test func folderOfAModelIsRefused() async throws {
        let folder = try Folder()
        let data = try folder.rows()
        let own = folder.url.appending(path: "model")
        try FileManager.default.copyItem(at: tales, to: own)
        let link = folder.url.appending(path: "link")
        try FileManager.default.createSymbolicLink(at: link, withDestinationURL: own)
        let shards = folder.url.appending(path: "huggingface")
        var conversion = ConvertOptions()
        conversion.format = .huggingFace
        try await LanguageModel.convert(tales, to: shards, options: conversion)
        for (from, into) in [
            (own, own), (own, link), (shards, shards), (tales, own), (tales, shards),
        ] {
            let model = try await LanguageModel(folder: from)
            let before = try FileManager.default.subpathsOfDirectory(atPath: folder.url.path)
            for resume in [false, true] {
                do {
                    let run = model.finetune(
                        on: data, savingTo: into, options: FinetuneTests.options, resume: resume)
                    for try await _ in run {}
                    Issue.record("a model's folder was accepted: \(into), resume \(resume)")
                } catch {
                    let expected =
                        switch error as? OpenELMError {
                        case .destination, .missingFile: true
                        default: false
                        }
                    #expect(expected, "\(error)")
                }
            }
            let after = try FileManager.default.subpathsOfDirectory(atPath: folder.url.path)
            #expect(before.sorted() == after.sorted(), "\(from)")
        }
    }
}
