import Foundation
internal import OpenELMBindings

/// An event of a fine-tuning.
public enum FinetuneEvent: Sendable, Equatable {
    /// A step was made.
    case step(FinetuneStep)
    /// The loss of the validation rows after `iteration` steps; `isBest` if it is the lowest so far.
    case validation(iteration: Int, loss: Double, isBest: Bool)
    /// Adapter and state were saved: a resumed run continues from here.
    case saved(iteration: Int)
    /// The last event.
    case finished(iteration: Int, reason: FinetuneEnd, best: BestIteration?)

    /// The validation with the lowest loss.
    public struct BestIteration: Sendable, Equatable {
        /// Steps made before it.
        public let iteration: Int
        /// Its loss.
        public let loss: Double
    }
}

/// A step of a fine-tuning.
public struct FinetuneStep: Sendable, Equatable {
    /// Steps made so far.
    public let iteration: Int
    /// Mean loss of its targets.
    public let loss: Float
    /// Predicted tokens.
    public let targets: Int
    /// Its learning rate.
    public let learningRate: Float
    /// Targets per second.
    public let tokensPerSecond: Double
    /// Targets so far.
    public let trainedTokens: Int
    /// Peak memory of MLX's arrays, in bytes.
    public let peakBytes: Int
}

/// The reason why a fine-tuning ended.
public enum FinetuneEnd: Sendable, Equatable {
    /// All steps were made.
    case iterations
    /// The validation loss has not improved for `patience` validations.
    case patience
    /// It was cancelled.
    case cancelled
}

extension LanguageModel {
    /// Trains an adapter for this model on the rows in `data`, a JSONL file or a folder of
    /// `train.jsonl` and `valid.jsonl`, and saves it in `folder`; ``addAdapter(_:folder:)`` applies
    /// it. With `resume` the run continues from its last save there, and ends with the same bytes
    /// as a run without a stop.
    ///
    /// The model's active adapters take no part, and the model can generate text meanwhile. The run
    /// starts with the first event that is requested. When the loop over the events ends or its
    /// task is cancelled, the run is saved and ends before its next step.
    public func finetune(
        on data: URL, savingTo folder: URL, options: FinetuneOptions = FinetuneOptions(),
        resume: Bool = false
    ) -> FinetuneEvents {
        let model = self.model
        return FinetuneEvents {
            try OpenELMBindings.finetune(
                model: model, data: data.path, folder: folder.path, options: options.ffiOptions(),
                resume: resume)
        }
    }
}

/// The events of a fine-tuning; see ``LanguageModel/finetune(on:savingTo:options:resume:)``.
public struct FinetuneEvents: AsyncSequence, Sendable {
    /// An event.
    public typealias Element = FinetuneEvent

    let stream: EventStream<FinetuneRun>

    init(_ start: @escaping @Sendable () throws -> FinetuneRun) {
        stream = EventStream(start: start)
    }

    /// Starts to train with the first event that is requested.
    public func makeAsyncIterator() -> Iterator { Iterator(events: stream.makeAsyncIterator()) }

    /// The events, one after the other.
    public struct Iterator: AsyncIteratorProtocol {
        var events: EventStream<FinetuneRun>.Iterator

        /// The next event; `nil` after the last.
        public mutating func next() async throws -> FinetuneEvent? {
            try await events.next().map(FinetuneEvent.init)
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
