import Foundation
internal import OpenELMBindings

/// The memory that a fine-tuning run may use, in addition to the loaded model. The estimate is for
/// rows of ``FinetuneOptions/maxSeqLength`` tokens: set it to the longest row of the data.
public enum MemoryBudget: Sendable, Equatable {
    /// Three quarters of ``Memory/available``; no limit where the system reports no memory.
    case automatic
    /// A number of bytes.
    case bytes(Int)
    /// No limit: the options are used as they are.
    case unlimited
}

/// The options of a run within a memory budget.
struct FinetunePlan: Sendable, Equatable {
    /// The options to train with. They train on the same rows in as many updates as the requested
    /// options, with the same number of rows per update.
    let options: FinetuneOptions

    /// Plans the run `requested` within `budget` bytes; `memory` estimates the bytes of options.
    ///
    /// The batch shrinks first, because gradient checkpointing makes a step a third slower. The
    /// batch size and the gradient accumulation of a saved run are kept: other ones would be
    /// another run. Gradient checkpointing does not change the result, so each launch chooses it.
    ///
    /// Throws an error of the device if nothing fits into `budget`.
    init(
        _ requested: FinetuneOptions, saved: FinetuneCheckpoint? = nil, budget: Int?,
        memory: (FinetuneOptions) async throws -> Int?
    ) async throws {
        var candidates = Self.sizes(of: requested)
        if let saved {
            // The library refuses the options of another run and lists the differences.
            candidates = candidates.filter {
                $0.batchSize == saved.batchSize
                    && $0.gradAccumulationSteps == saved.gradAccumulationSteps
            }
        }
        guard let first = candidates.first else {
            options = requested
            return
        }
        guard let budget else {
            options = first
            return
        }
        let recomputed = candidates.map {
            var options = $0
            options.gradCheckpoint = true
            return options
        }
        var least: Int?
        for candidate in candidates + recomputed {
            guard let bytes = try await memory(candidate) else {
                options = first
                return
            }
            if bytes <= budget {
                options = candidate
                return
            }
            least = min(least ?? bytes, bytes)
        }
        let name = saved == nil ? "a batch of one row" : "a batch of the saved run"
        throw OpenELMError.device(
            message: "\(name): expected at most \(budget) bytes, found \(least ?? 0)")
    }

    /// The requested options and those of smaller batches, largest batch first. All options that
    /// count batches grow as the batch shrinks.
    private static func sizes(of requested: FinetuneOptions) -> [FinetuneOptions] {
        // The library names options out of range.
        guard requested.batchSize > 0, requested.batchSize <= Int(Int32.max) else { return [] }
        return factors(of: requested.batchSize).compactMap { factor in
            func scaled(_ value: Int) -> Int? {
                let (product, overflows) = value.multipliedReportingOverflow(by: factor)
                return overflows ? nil : product
            }
            guard let accumulation = scaled(requested.gradAccumulationSteps),
                let iters = scaled(requested.iters),
                let stepsPerEval = scaled(requested.stepsPerEval),
                let saveEvery = scaled(requested.saveEvery)
            else { return nil }
            var options = requested
            options.batchSize = requested.batchSize / factor
            options.gradAccumulationSteps = accumulation
            options.iters = iters
            options.stepsPerEval = stepsPerEval
            options.saveEvery = saveEvery
            if let valBatches = requested.valBatches {
                guard let batches = scaled(valBatches) else { return nil }
                options.valBatches = batches
            }
            return options
        }
    }

    /// The factors of `number`, in ascending order.
    private static func factors(of number: Int) -> [Int] {
        let small = sequence(first: 1) { $0 + 1 }.prefix { $0 * $0 <= number }
            .filter { number % $0 == 0 }
        let large = small.map { number / $0 }.filter { $0 * $0 > number }
        return small + large.reversed()
    }
}

extension LanguageModel {
    /// Returns an upper estimate, in bytes, of the memory of a fine-tuning with `options` beside
    /// this loaded model, for rows of ``FinetuneOptions/maxSeqLength`` tokens.
    public func estimatedTrainingMemory(_ options: FinetuneOptions) async throws -> Int {
        let model = self.model
        let options = try options.ffiOptions()
        let bytes = try await translated { try await model.finetuneMemory(options: options) }
        return Int(clamping: bytes)
    }
}
