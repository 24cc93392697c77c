import Foundation
import Testing

@testable import OpenELM

struct FinetunePlanTests {
    private static func options(_ batchSize: Int, checkpoint: Bool = false) -> FinetuneOptions {
        var options = FinetuneOptions()
        options.batchSize = batchSize
        options.gradAccumulationSteps = 3
        options.iters = 100
        options.stepsPerEval = 20
        options.saveEvery = 10
        options.valBatches = 5
        options.gradCheckpoint = checkpoint
        return options
    }

    /// 100 bytes per row, half of it with gradient checkpointing.
    private static func memory(_ options: FinetuneOptions) -> Int? {
        options.batchSize * (options.gradCheckpoint ? 50 : 100)
    }

    private static func checkpoint(_ batchSize: Int, _ accumulation: Int) -> FinetuneCheckpoint {
        FinetuneCheckpoint(
            iteration: 4, trainedTokens: 9, batchSize: batchSize,
            gradAccumulationSteps: accumulation, best: nil)
    }

    @Test(
        arguments: [
            (nil, 6, false), (600, 6, false), (599, 3, false), (300, 3, false), (299, 2, false),
            (199, 1, false), (100, 1, false), (99, 1, true), (50, 1, true),
        ] as [(Int?, Int, Bool)])
    func batchFitsIntoTheBudget(budget: Int?, batchSize: Int, checkpoints: Bool) async throws {
        let requested = Self.options(6)
        let plan = try await FinetunePlan(requested, budget: budget, memory: Self.memory)
        let options = plan.options
        #expect(options.batchSize == batchSize && options.gradCheckpoint == checkpoints)
        // The rows of an update, of a validation interval, of a checkpoint and of the run.
        #expect(options.batchSize * options.gradAccumulationSteps == 6 * 3)
        #expect(options.batchSize * options.iters == 6 * 100)
        #expect(options.batchSize * options.stepsPerEval == 6 * 20)
        #expect(options.batchSize * options.saveEvery == 6 * 10)
        #expect(options.valBatches.map { $0 * batchSize } == 6 * 5)
    }

    @Test func tooLargeRunNamesBothSizes() async throws {
        do {
            _ = try await FinetunePlan(Self.options(4), budget: 49, memory: Self.memory)
            Issue.record("a budget of 49 bytes was accepted")
        } catch OpenELMError.device(let message) {
            #expect(message.contains("at most 49 bytes, found 50"), "\(message)")
        }
        do {
            let saved = Self.checkpoint(4, 3)
            _ = try await FinetunePlan(
                Self.options(4), saved: saved, budget: 199, memory: Self.memory)
            Issue.record("a batch of the saved run was accepted")
        } catch OpenELMError.device(let message) {
            #expect(message.contains("at most 199 bytes, found 200"), "\(message)")
        }
    }

    @Test(
        arguments: [
            // The saved run began with little memory.
            (2, 6, nil, 2, false), (2, 6, 10000, 2, false), (2, 6, 199, 2, true),
            // It began with much memory.
            (4, 3, nil, 4, false), (4, 3, 399, 4, true), (4, 3, 200, 4, true),
            // Another run: the library refuses the requested options.
            (3, 3, 50, 4, false), (2, 3, 50, 4, false), (8, 3, 50, 4, false), (0, 0, 50, 4, false),
        ] as [(Int, Int, Int?, Int, Bool)])
    func savedRunKeepsItsBatch(
        batchSize: Int, accumulation: Int, budget: Int?, expected: Int, checkpoints: Bool
    ) async throws {
        let plan = try await FinetunePlan(
            Self.options(4), saved: Self.checkpoint(batchSize, accumulation), budget: budget,
            memory: Self.memory)
        #expect(plan.options.batchSize == expected)
        #expect(plan.options.gradCheckpoint == checkpoints)
        #expect(plan.options.gradAccumulationSteps == 12 / expected)
    }

    @Test func requestedGradientCheckpointingIsKept() async throws {
        let plan = try await FinetunePlan(
            Self.options(4, checkpoint: true), budget: 200, memory: Self.memory)
        #expect(plan.options.batchSize == 4 && plan.options.gradCheckpoint)
    }

    @Test func optionsOutOfRangeArePassedOn() async throws {
        for batchSize in [Int.min, -1, 0, Int(Int32.max) + 1, Int.max] {
            let requested = Self.options(batchSize)
            let plan = try await FinetunePlan(requested, budget: 1, memory: Self.memory)
            #expect(plan.options == requested)
        }
        // Products that overflow are no candidates.
        var requested = Self.options(4)
        requested.iters = Int.max
        let plan = try await FinetunePlan(requested, budget: 200, memory: Self.memory)
        #expect(plan.options.batchSize == 4 && plan.options.gradCheckpoint)
        // Without an estimate nothing changes.
        let unknown = try await FinetunePlan(Self.options(4), budget: 1) { _ in nil }
        #expect(unknown.options == Self.options(4))
        let large = try await FinetunePlan(Self.options(Int(Int32.max)), budget: 100) { _ in 0 }
        #expect(large.options.batchSize == Int(Int32.max))
    }
}
