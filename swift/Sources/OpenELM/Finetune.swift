import Foundation
internal import OpenELMBindings

/// An event of a fine-tuning run.
public enum FinetuneEvent: Sendable, Equatable {
    /// A training step is complete.
    case step(FinetuneStep)
    /// The validation loss after `iteration` steps. `isBest` is true for the lowest loss so far.
    case validation(iteration: Int, loss: Double, isBest: Bool)
    /// The adapter and the training state are saved; a resumed run continues from here.
    case saved(iteration: Int)
    /// The last event.
    case finished(iteration: Int, reason: FinetuneEnd, best: BestIteration?)

    /// The validation with the lowest loss.
    public struct BestIteration: Sendable, Hashable, Codable {
        /// The number of completed steps.
        public let iteration: Int
        /// The loss.
        public let loss: Double
    }
}

/// A step of a fine-tuning run.
public struct FinetuneStep: Sendable, Equatable {
    /// The number of completed steps.
    public let iteration: Int
    /// The mean loss per target, in nats.
    public let loss: Float
    /// The number of predicted tokens.
    public let targets: Int
    /// The learning rate.
    public let learningRate: Float
    /// Targets per second.
    public let tokensPerSecond: Double
    /// The total number of targets so far.
    public let trainedTokens: Int
    /// Peak memory of MLX's arrays, in bytes.
    public let peakBytes: Int
}

/// The reason why a fine-tuning run ended.
public enum FinetuneEnd: Sendable, Equatable {
    /// All iterations are complete.
    case iterations
    /// The validation loss has not improved for `patience` validations.
    case patience
    /// The run was cancelled.
    case cancelled
}

extension LanguageModel {
    /// Trains an adapter for this model and saves it in `folder`. Apply it with
    /// ``addAdapter(_:folder:)``.
    ///
    /// `data` is a JSONL file, or a folder with `train.jsonl` and `valid.jsonl`. With `resume`, the
    /// run in `folder` continues from its last checkpoint and gives the same files as an
    /// uninterrupted run; a run that ended before its first checkpoint starts again.
    ///
    /// The model's active adapters are not used in training, and the model can generate text at the
    /// same time. The run starts with the first requested event.
    ///
    /// If the task of the loop is cancelled, the run ends before its next step and is saved. The
    /// loop receives the events until then, the last of them
    /// ``FinetuneEvent/finished(iteration:reason:best:)``, and throws `CancellationError` once the
    /// state is on disk. If the loop ends earlier, by `break` or by an error of its body, the run
    /// is saved soon after; a later run in `folder` waits for the save. ``FinetuneTask`` runs a
    /// fine-tuning in the life of an app.
    public func finetune(
        on data: URL, savingTo folder: URL, options: FinetuneOptions = FinetuneOptions(),
        resume: Bool = false
    ) -> FinetuneEvents {
        let model = self.model
        return FinetuneEvents {
            try OpenELMBindings.finetune(
                model: model, data: filePath(data, "data"), folder: filePath(folder, "folder"),
                options: options.ffiOptions(), resume: resume)
        }
    }
}

/// The events of a fine-tuning run; see ``LanguageModel/finetune(on:savingTo:options:resume:)``.
public struct FinetuneEvents: AsyncSequence, Sendable {
    /// An event.
    public typealias Element = FinetuneEvent

    let stream: EventStream<FinetuneRun>

    init(_ start: @escaping @Sendable () throws -> FinetuneRun) {
        stream = EventStream(start: start)
    }

    /// Creates an iterator; training starts with the first requested event.
    public func makeAsyncIterator() -> Iterator { Iterator(events: stream.makeAsyncIterator()) }

    /// An iterator over the events.
    public struct Iterator: AsyncIteratorProtocol {
        var events: EventStream<FinetuneRun>.Iterator

        /// Returns the next event, or `nil` after the last one. In a cancelled task it returns the
        /// events until the run is saved, and then throws `CancellationError`.
        public mutating func next() async throws -> FinetuneEvent? {
            try await next(isolation: nil)
        }

        /// Like the other `next()`, and returns the event to the caller's actor.
        public mutating func next(
            isolation actor: isolated (any Actor)?
        ) async throws -> FinetuneEvent? {
            try await events.next(isolation: actor).map(FinetuneEvent.init)
        }
    }
}

extension FinetuneEvent {
    init(_ event: OpenELMBindings.FinetuneEvent) {
        switch event {
        case .step(
            let iteration, let loss, let targets, let learningRate, let tokensPerSecond,
            let trainedTokens, let peakBytes):
            self = .step(
                FinetuneStep(
                    iteration: Int(iteration), loss: loss, targets: Int(targets),
                    learningRate: learningRate, tokensPerSecond: tokensPerSecond,
                    trainedTokens: Int(trainedTokens), peakBytes: Int(peakBytes)))
        case .validation(let iteration, let loss, let best):
            self = .validation(iteration: Int(iteration), loss: loss, isBest: best)
        case .saved(let iteration): self = .saved(iteration: Int(iteration))
        case .finished(let iteration, let reason, let bestIteration, let bestLoss):
            let end: FinetuneEnd =
                switch reason {
                case .iterations: .iterations
                case .patience: .patience
                case .cancelled: .cancelled
                }
            var best: BestIteration?
            if let bestIteration, let bestLoss {
                best = BestIteration(iteration: Int(bestIteration), loss: bestLoss)
            }
            self = .finished(iteration: Int(iteration), reason: end, best: best)
        }
    }
}
