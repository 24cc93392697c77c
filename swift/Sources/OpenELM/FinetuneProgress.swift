import Foundation

/// A loss after a number of steps, for a chart.
public struct LossPoint: Sendable, Equatable, Identifiable {
    /// The number of completed steps.
    public let iteration: Int
    /// The loss, in nats.
    public let loss: Double

    /// The number of completed steps.
    public var id: Int { iteration }
}

/// The progress of a saved run, from the files in its folder.
struct FinetuneProgress: Sendable, Equatable {
    var checkpoint: FinetuneCheckpoint?
    var losses: [LossPoint] = []
    var validationLosses: [LossPoint] = []

    /// Reads the losses up to `checkpoint` from the metrics in `folder`. A resumed run repeats the
    /// later ones. Lines that are cut or unknown are ignored.
    init(of folder: URL, checkpoint: FinetuneCheckpoint?) {
        self.checkpoint = checkpoint
        guard let checkpoint,
            let text = try? Data(contentsOf: folder.appending(path: "metrics.jsonl"))
        else { return }
        struct Line: Decodable {
            let iteration: Int
            let train_loss: Double?
            let val_loss: Double?
        }
        let decoder = JSONDecoder()
        for line in text.split(separator: UInt8(ascii: "\n")) {
            guard let line = try? decoder.decode(Line.self, from: line),
                line.iteration <= checkpoint.iteration
            else { continue }
            if let loss = line.train_loss {
                losses.append(LossPoint(iteration: line.iteration, loss: loss))
            }
            if let loss = line.val_loss {
                validationLosses.append(LossPoint(iteration: line.iteration, loss: loss))
            }
        }
    }
}

/// The start or resumption of a run: everything before its first step.
struct FinetuneLaunch: Sendable {
    let data: URL
    let folder: URL
    let options: FinetuneOptions
    let budget: MemoryBudget
    let model: @Sendable () async throws -> LanguageModel
    /// Estimates the bytes of training with options.
    var memory: @Sendable (LanguageModel, FinetuneOptions) async throws -> Int? = {
        try await $0.estimatedTrainingMemory($1)
    }
    /// Bytes that the process can still allocate.
    var available: @Sendable () throws -> Int? = { try Memory.available }

    /// Reads the progress of the run in the folder.
    func progress() async throws -> FinetuneProgress {
        FinetuneProgress(
            of: folder, checkpoint: try await LanguageModel.resumableFineTuning(at: folder))
    }

    /// Plans the run for the memory that is now available.
    func begin() async throws -> (FinetuneEvents, FinetuneOptions, FinetuneProgress) {
        let model = try await self.model()
        let progress = try await self.progress()
        let plan = try await FinetunePlan(
            options, saved: progress.checkpoint, budget: budgetNow(),
            memory: { try await memory(model, $0) })
        let events = model.finetune(
            on: data, savingTo: folder, options: plan.options, resume: true)
        return (events, plan.options, progress)
    }

    /// The total number of steps of `options`, or of the saved run.
    func iterations(of options: FinetuneOptions, saved: FinetuneCheckpoint?) -> Int {
        guard let saved, saved.batchSize > 0 else { return options.iters }
        let (product, overflows) = self.options.iters.multipliedReportingOverflow(
            by: max(1, self.options.batchSize / saved.batchSize))
        return overflows ? options.iters : product
    }

    private func budgetNow() throws -> Int? {
        switch budget {
        case .automatic: try available().map { $0 / 4 * 3 }
        case .bytes(let bytes): bytes
        case .unlimited: nil
        }
    }
}
