import Foundation
import OpenELM
import Testing

@testable import openelm_chat

@MainActor @Suite(.serialized) struct TrainingModelTests {
    private let row = "{\"text\": \"The fox found a red apple and gave it to the king.\"}\n"

    private func prepared(
        in folder: TemporaryFolder? = nil, iterations: Int = 4
    ) async throws -> (ChatFixture, TrainingModel) {
        let fixture = try await ChatFixture.started(in: folder)
        let training = fixture.chat.training
        training.data = try fixture.folder.write(row + row, to: "rows.jsonl")
        training.name = "mine"
        training.options.iterations = iterations
        training.options.learningRate = 1e-2
        return (fixture, training)
    }

    @Test func trainsAndUsesAnAdapter() async throws {
        let (fixture, training) = try await prepared()
        let plain = try await fixture.ask("The fox")
        #expect(training.canStart && training.task == nil)
        training.start()
        #expect(training.isActive && !training.canStart)
        let task = try #require(training.task)
        training.start()
        await training.finish()
        #expect(training.task === task && !training.isActive)
        #expect(task.phase == .finished(.iterations), "\(task.phase)")
        #expect(task.losses.map(\.iteration) == [1, 2, 3, 4] && task.fractionCompleted == 1)
        let run = try #require(training.runs.first)
        #expect(run.isFinished && training.run == run && run.name == "mine")
        #expect(fixture.announced.all.last == "The training of mine is complete.")
        #expect(training.name.isEmpty && training.data == nil)
        // The open conversation continued with the model for training.
        #expect(fixture.chat.session.messages.count == 2)
        await fixture.chat.useAdapter(of: run)
        #expect(fixture.chat.adapters.active == "mine" && fixture.chat.adapters.problem == nil)
        fixture.chat.newConversation()
        let tuned = try await fixture.ask("The fox")
        #expect(tuned != plain)
        // A finished run is not resumed.
        training.resume(run)
        #expect(!training.isActive)
        let again = try await ChatFixture.started(in: fixture.folder)
        #expect(again.chat.training.runs == [run])
    }

    @Test func stopsAndResumesAtTheNextStart() async throws {
        let folder = try TemporaryFolder()
        let (_, training) = try await prepared(in: folder, iterations: 1000)
        training.start()
        let task = try #require(training.task)
        try await eventually { task.losses.count >= 2 }
        let run = try #require(training.run)
        training.delete(run)
        #expect(training.runs == [run], "an active run was deleted")
        await training.stop()
        #expect(task.phase == .idle && !training.isActive && training.runs == [run])
        #expect(!run.isFinished)
        try FileManager.default.removeItem(at: folder.url.appending(path: "rows.jsonl"))

        let again = try await ChatFixture.started(in: folder)
        let resumed = again.chat.training
        #expect(resumed.runs == [run])
        resumed.resume(run)
        let second = try #require(resumed.task)
        try await eventually { second.iteration > task.iteration }
        #expect(second.losses.prefix(2) == task.losses.prefix(2))
        // The model is unloaded: the run is stopped and saved.
        again.chat.loader.unload()
        await again.chat.loader.finish()
        #expect(second.phase == .idle && !resumed.isActive && again.chat.loader.model == nil)
        resumed.resume(run)
        #expect(resumed.problem?.contains("tales") == true && !resumed.isActive)
        resumed.delete(run)
        #expect(resumed.runs.isEmpty && resumed.task == nil && resumed.problem == nil)
        #expect(try folder.names(in: "Support/Training").isEmpty)
    }

    @Test func pausesWithTheConditionsOfTheDevice() async throws {
        let (fixture, training) = try await prepared(iterations: 1000)
        training.start()
        let task = try #require(training.task)
        try await eventually { task.losses.count >= 1 }
        fixture.conditions.yield(TrainingConditions(isLowPowerModeEnabled: true))
        try await eventually { task.phase == .paused([.lowPowerMode]) }
        #expect(training.isActive && training.pauseReasons == [.lowPowerMode])
        let steps = task.iteration
        training.pause()
        fixture.conditions.yield(TrainingConditions())
        try await eventually { task.phase == .paused([.user]) }
        training.unpause()
        try await eventually { task.iteration > steps }
        #expect(training.pauseReasons.isEmpty)
        // A paused run does not continue with another model.
        training.pause()
        try await eventually { task.phase == .paused([.user]) }
        fixture.chat.open(URL(filePath: "/nowhere"))
        await fixture.chat.loader.finish()
        #expect(!training.isActive && task.phase == .idle)
    }

    @Test func reportsErrorsOfARun() async throws {
        let (fixture, training) = try await prepared()
        training.data = try fixture.folder.write("{\"text\": ", to: "bad.jsonl")
        training.start()
        await training.finish()
        guard case .failed = training.task?.phase else {
            Issue.record("\(String(describing: training.task?.phase))")
            return
        }
        let why = try #require(training.problem)
        #expect(why.contains("bad.jsonl"), "\(why)")
        #expect(fixture.announced.all.last == "The training failed: \(why)")
        // The model still answers.
        #expect(try await !fixture.ask("A fox").isEmpty)
    }

    @Test func stoppedWhileTheModelIsLoaded() async throws {
        let (fixture, training) = try await prepared()
        training.start()
        await training.stop()
        #expect(training.task?.phase == .idle && training.task?.losses.isEmpty == true)
        await fixture.chat.loader.finish()
        let run = try #require(training.run)
        training.resume(run)
        await training.finish()
        #expect(training.task?.phase == .finished(.iterations))
        #expect(training.task?.losses.count == 4)
        #expect(fixture.announced.all == ["The training of mine is complete."])
    }

    @Test func aModelThatCannotBeLoadedStopsTheRun() async throws {
        let folder = try TemporaryFolder()
        let documents = folder.url.appending(path: "Documents")
        try FileManager.default.createDirectory(at: documents, withIntermediateDirectories: true)
        let copy = documents.appending(path: "mine")
        try FileManager.default.copyItem(at: tales, to: copy)
        let (fixture, training) = try await prepared(in: folder)
        fixture.chat.open(copy)
        await fixture.chat.loader.finish()
        try FileManager.default.removeItem(at: copy.appending(path: "config.json"))
        training.start()
        await training.finish()
        #expect(training.task?.phase == .idle && !training.isActive)
        #expect(training.problem?.contains("config.json") == true, "\(training.problem ?? "")")
        let run = try #require(training.runs.first)
        #expect(!run.isFinished)
        training.delete(run)
        #expect(training.runs.isEmpty)
    }

    @Test func needsDataANameAndAModel() async throws {
        let folder = try TemporaryFolder()
        let fixture = try ChatFixture(in: folder)
        let training = fixture.chat.training
        training.data = try folder.write(row, to: "rows.jsonl")
        training.name = "mine"
        #expect(!training.canStart)
        training.start()
        #expect(training.runs.isEmpty)
        await fixture.chat.start()
        await fixture.chat.loader.finish()
        #expect(training.canStart)
        training.name = " "
        #expect(!training.canStart)
        training.name = "mine"
        training.data = nil
        #expect(!training.canStart)
    }

    @Test func namesOfRunsAreChecked() throws {
        let folder = try TemporaryFolder()
        let store = TrainingStore(directory: folder.url.appending(path: "Training"))
        let data = try folder.write(row, to: "rows.jsonl")
        func create(_ name: String, data: URL) throws -> TrainingRun {
            try store.create(name, model: "tales", data: data, options: TrainingOptions())
        }
        for name in ["", "..", "../up", "a/b", ".hidden", String(repeating: "a", count: 101)] {
            #expect(throws: ChatError.self) { try create(name, data: data) }
        }
        let run = try create(" mine ", data: data)
        #expect(run.name == "mine")
        #expect(throws: ChatError.self) { try create("mine", data: data) }
        // Nothing is left of a run whose data cannot be copied.
        #expect(throws: (any Error).self) {
            try create("other", data: folder.url.appending(path: "nowhere"))
        }
        #expect(try folder.names(in: "Training") == ["mine"])
        try folder.write("{", to: "Training/broken/run.json")
        let (runs, unreadable) = try store.load()
        #expect(runs == [run] && unreadable == ["broken"])
    }
}
