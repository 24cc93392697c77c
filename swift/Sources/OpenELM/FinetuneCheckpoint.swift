import Foundation
internal import OpenELMBindings

/// The saved state of a fine-tuning run.
public struct FinetuneCheckpoint: Sendable, Hashable, Codable {
    /// The number of completed steps.
    public let iteration: Int
    /// The total number of targets so far.
    public let trainedTokens: Int
    /// Rows per batch.
    public let batchSize: Int
    /// Batches per update.
    public let gradAccumulationSteps: Int
    /// The validation with the lowest loss.
    public let best: FinetuneEvent.BestIteration?
}

extension LanguageModel {
    /// Returns the state of the fine-tuning run in `folder`, or `nil` if there is none to resume.
    ///
    /// With `resume`, ``finetune(on:savingTo:options:resume:)`` continues after
    /// ``FinetuneCheckpoint/iteration``. A run that ended before its first checkpoint has no state;
    /// it starts again.
    public static func resumableFineTuning(at folder: URL) async throws -> FinetuneCheckpoint? {
        let path = try filePath(folder, "folder")
        return try await translated { try await savedRun(folder: path) }
            .map(FinetuneCheckpoint.init)
    }
}

extension FinetuneCheckpoint {
    fileprivate init(_ run: SavedRun) {
        iteration = Int(clamping: run.iteration)
        trainedTokens = Int(clamping: run.trainedTokens)
        batchSize = Int(clamping: run.batchSize)
        gradAccumulationSteps = Int(clamping: run.gradAccumulationSteps)
        if let iteration = run.bestIteration, let loss = run.bestLoss {
            best = FinetuneEvent.BestIteration(iteration: Int(clamping: iteration), loss: loss)
        } else {
            best = nil
        }
    }
}
