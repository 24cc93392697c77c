import Foundation
import Testing

@testable import OpenELM

/// A process that is killed while it trains.
@Suite(.serialized, .timeLimit(.minutes(10))) @MainActor struct FinetuneKillTests {
    @Test func killedProcessLosesOnlyTheStepsAfterItsCheckpoint() async throws {
        let app = try await App()
        app.options.saveEvery = 2
        var random = SystemRandomNumberGenerator()
        var kills: [Int] = []
        for _ in 0..<3 {
            let lines = Int.random(in: 1...7, using: &random)
            kills.append(lines)
            try await Self.train(app, in: "adapter", untilLine: lines)
            let saved = try await LanguageModel.resumableFineTuning(at: app.target)
            let task = app.task()
            try await task.refresh()
            #expect(task.iteration == saved?.iteration ?? 0, "killed after \(kills) lines")
            #expect(task.losses.map(\.iteration) == Array((1...12).prefix(task.iteration)))
        }
        // Another process rounds differently, so its steps are repeated up to the checkpoint.
        let saved = try await LanguageModel.resumableFineTuning(at: app.target)
        if let saved { try await Self.train(app, in: "whole", iterations: saved.iteration) }
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.finish()
        #expect(task.phase == .finished(.iterations), "killed after \(kills) lines")
        #expect(task.losses.map(\.iteration) == Array(1...12))
        try await app.expectSameBytes()
    }

    /// The files that a kill would leave at any moment.
    @Test func copiesOfARunningFolderContinueToTheSameBytes() async throws {
        let app = try await App()
        app.options.saveEvery = 2
        let task = app.task()
        var copies: [String] = []
        var events = 0
        let copied = Set([Int](1...18).shuffled().prefix(3))
        task.onEvent = { _ in
            events += 1
            guard copied.contains(events) else { return }
            copies.append("copy-\(events)")
            #expect(throws: Never.self) {
                try Self.copy(app.target, to: app.folder.url.appending(path: "copy-\(events)"))
            }
        }
        app.change(to: TrainingConditions())
        task.start()
        await task.finish()
        try await app.expectSameBytes()
        let whole = try Data(contentsOf: app.target.appending(path: FinetuneTaskTests.adapter))
        #expect(copies.count == 3)
        for copy in copies {
            let later = app.task(in: copy)
            app.change(to: TrainingConditions())
            later.start()
            await later.finish()
            #expect(later.phase == .finished(.iterations), "\(copy)")
            let adapter = later.launch.folder.appending(path: FinetuneTaskTests.adapter)
            #expect(try Data(contentsOf: adapter) == whole, "\(copy)")
        }
    }

    /// Copies a folder in which files are replaced meanwhile, the state first: the adapter and the
    /// metrics are written after it.
    private static func copy(_ folder: URL, to copy: URL) throws {
        let files = FileManager.default
        try files.createDirectory(at: copy, withIntermediateDirectories: true)
        let names = try files.contentsOfDirectory(atPath: folder.path)
        let stateFile = "training_state.safetensors"
        let others = names.filter { $0 != stateFile }
        for name in names.filter({ $0 == stateFile }) + others {
            let (from, to) = (folder.appending(path: name), copy.appending(path: name))
            do {
                try files.copyItem(at: from, to: to)
            } catch {
                // A temporary file that was renamed after the folder was listed.
                if files.fileExists(atPath: from.path) { throw error }
            }
        }
    }

    /// Trains in another process, which is killed after it has printed a number of events.
    private static func train(
        _ app: App, in name: String, iterations: Int = 12, untilLine count: Int? = nil
    ) async throws {
        let tool = try #require(ProcessInfo.processInfo.environment["OPENELM_TOOL"])
        let process = Process()
        process.executableURL = URL(filePath: tool)
        process.arguments = [
            "finetune", "--model", tales.path, "--data", app.data.path, "--adapter-path",
            app.folder.url.appending(path: name).path, "--iters", "\(iterations)",
            "--batch-size", "2", "--learning-rate", "3e-4", "--steps-per-eval", "6",
            "--save-every", "2", "--seed", "3", "--json", "--resume",
        ]
        let (output, errors) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = errors
        try process.run()
        let id = process.processIdentifier
        // A thread of its own, because it waits for the output.
        let done = AsyncStream<Void> { continuation in
            Thread.detachNewThread {
                var seen = 0
                while true {
                    let data = output.fileHandleForReading.availableData
                    seen += data.count { $0 == UInt8(ascii: "\n") }
                    if let count, seen >= count { kill(id, SIGKILL) }
                    if data.isEmpty { break }
                }
                continuation.finish()
            }
        }
        for await _ in done {}
        process.waitUntilExit()
        if count == nil { #expect(process.terminationStatus == 0) }
    }
}
