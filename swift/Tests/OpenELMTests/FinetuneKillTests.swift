import Foundation
import Testing

@testable import OpenELM

/// A process that is killed while it trains.
@Suite(.serialized, .timeLimit(.minutes(10))) @MainActor struct FinetuneKillTests {
    @Test func killedRunContinuesToTheSameBytes() async throws {
        let app = try await App()
        app.options.saveEvery = 2
        var random = SystemRandomNumberGenerator()
        var kills: [Int] = []
        for _ in 0..<3 {
            let lines = Int.random(in: 1...8, using: &random)
            kills.append(lines)
            try Self.train(app, untilLine: lines)
            let saved = try await LanguageModel.resumableFineTuning(at: app.target)
            let task = app.task()
            try await task.refresh()
            #expect(task.iteration == saved?.iteration ?? 0, "killed after \(kills) lines")
            #expect(
                task.losses.map(\.iteration) == Array(1...12).prefix(task.iteration).map(\.self))
        }
        let task = app.task()
        app.change(to: TrainingConditions())
        task.start()
        await task.finish()
        #expect(task.phase == .finished(.iterations), "killed after \(kills) lines")
        #expect(task.losses.map(\.iteration) == Array(1...12))
        #expect(task.validationLosses.map(\.iteration) == [0, 6, 12])
        try await app.expectSameBytes()
    }

    /// Trains in another process, which is killed after it has printed a number of events.
    private static func train(_ app: App, untilLine count: Int) throws {
        let tool = try #require(ProcessInfo.processInfo.environment["OPENELM_TOOL"])
        let process = Process()
        process.executableURL = URL(filePath: tool)
        process.arguments = [
            "finetune", "--model", tales.path, "--data", app.data.path, "--adapter-path",
            app.target.path, "--iters", "12", "--batch-size", "2", "--learning-rate", "3e-4",
            "--steps-per-eval", "6", "--save-every", "2", "--seed", "3", "--json", "--resume",
        ]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        var seen = 0
        while seen < count {
            let data = output.fileHandleForReading.availableData
            if data.isEmpty { break }
            seen += data.count { $0 == UInt8(ascii: "\n") }
        }
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }
}
