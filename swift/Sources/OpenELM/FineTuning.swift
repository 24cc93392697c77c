import Foundation
internal import OpenELMBindings

/// How a model is fine-tuned. The defaults are those of `openelm finetune` and `mlx_lm.lora`.
public struct FineTuningOptions: Sendable, Equatable {
    /// What is trained.
    public enum Method: Sendable {
        /// Two narrow matrices beside each matrix (LoRA).
        case lora
        /// The same, and the magnitude of each row (DoRA).
        case dora
        /// The matrices themselves.
        case full
    }

    /// What is trained.
    public var method = Method.lora
    /// Rank of the adapter's matrices.
    public var rank = 8
    /// What the adapter's part is multiplied by.
    public var scale: Float = 20
    /// Share of the adapter's input that is dropped in training, in [0, 1).
    public var dropout: Float = 0
    /// Layers that are trained, counted from the last; `nil` is all.
    public var layers: Int?
    /// Modules that are trained, as `attn.qkv_proj`; `nil` is every matrix of those layers.
    public var modules: [String]?
    /// Steps to make.
    public var iterations = 1000
    /// Rows of a step.
    public var batchSize = 4
    /// The most tokens of a row; longer ones are split.
    public var maximumSequenceLength = 2048
    /// Trains the completion or answer of a row alone, not its prompt.
    public var masksPrompt = false
    /// Rows are pairs of a `chosen` and a `rejected` answer (DPO).
    public var usesPreferences = false
    /// Learning rate after the warm-up.
    public var learningRate = 1e-5
    /// Updates in which the learning rate grows from 0.
    public var warmup = 0
    /// Lets the learning rate fall to 0 along a cosine.
    public var decaysLearningRate = false
    /// Weight decay; above 0 the optimizer is AdamW, else Adam.
    public var weightDecay: Float = 0
    /// Steps whose gradients make one update.
    public var accumulationSteps = 1
    /// Computes activations again instead of keeping them: less memory, a third slower.
    public var checkpointsGradients = false
    /// Largest length of the gradient; `nil` is any.
    public var clipNorm: Float?
    /// Steps between validations.
    public var stepsPerValidation = 200
    /// Batches of a validation; `nil` is all rows.
    public var validationBatches: Int? = 25
    /// Steps between saves.
    public var stepsPerSave = 100
    /// Validations without a better loss after which it ends; `nil` is never.
    public var patience: Int?
    /// Seed of the adapter, the order of rows and dropout.
    public var seed: UInt64 = 0

    /// The defaults.
    public init() {}

    func bound() throws -> FinetuneOptions {
        let kind: FinetuneKind =
            switch method {
            case .lora: .lora
            case .dora: .dora
            case .full: .full
            }
        return FinetuneOptions(
            kind: kind,
            rank: try count("rank", rank), scale: scale, dropout: dropout,
            numLayers: try layers.map { try count("layers", $0) }, keys: modules,
            iters: try count("iterations", iterations),
            batchSize: try count("batchSize", batchSize),
            maxSeqLength: try count("maximumSequenceLength", maximumSequenceLength),
            maskPrompt: masksPrompt, preferences: usesPreferences, learningRate: learningRate,
            warmup: try count("warmup", warmup), cosine: decaysLearningRate,
            weightDecay: weightDecay,
            gradAccumulationSteps: try count("accumulationSteps", accumulationSteps),
            gradCheckpoint: checkpointsGradients, clipNorm: clipNorm,
            stepsPerEval: try count("stepsPerValidation", stepsPerValidation),
            valBatches: try validationBatches.map { try count("validationBatches", $0) },
            saveEvery: try count("stepsPerSave", stepsPerSave),
            patience: try patience.map { UInt32(clamping: try count("patience", $0)) }, seed: seed)
    }
}

/// What a fine-tuning tells.
public enum FineTuningEvent: Sendable, Equatable {
    /// A step was made.
    case step(FineTuningStep)
    /// The loss of the validation rows after `iteration` steps, and whether it is the least so far.
    case validation(iteration: Int, loss: Double, isBest: Bool)
    /// Everything is on the disk: a run goes on from here.
    case saved(iteration: Int)
    /// The last event.
    case finished(iteration: Int, reason: FineTuningEnd, best: BestIteration?)

    /// The step after which the validation loss was least.
    public struct BestIteration: Sendable, Equatable {
        /// Steps that had been made.
        public let iteration: Int
        /// The validation loss then.
        public let loss: Double
    }
}

/// A step of a fine-tuning.
public struct FineTuningStep: Sendable, Equatable {
    /// Steps that were made.
    public let iteration: Int
    /// Mean loss of its targets.
    public let loss: Float
    /// Tokens that were predicted.
    public let targets: Int
    /// Its learning rate.
    public let learningRate: Float
    /// Targets a second of late.
    public let tokensPerSecond: Double
    /// Targets since the run began.
    public let trainedTokens: Int
    /// The most bytes that arrays took at one time.
    public let peakBytes: Int
}

/// Why a fine-tuning ended.
public enum FineTuningEnd: Sendable, Equatable {
    /// All steps were made.
    case iterations
    /// Validation had not become better for long enough.
    case patience
    /// It was cancelled.
    case cancelled
}

extension LanguageModel {
    /// Trains an adapter for this model on the rows in `data`, a JSONL file or a folder of
    /// `train.jsonl` and `valid.jsonl`, and keeps it in `folder`; ``addAdapter(_:folder:)`` applies
    /// it. With `resuming` it goes on from the last save there, and ends with the same bytes as a
    /// run that was never stopped.
    ///
    /// The adapters that are active on the model take no part, and texts may be generated meanwhile.
    /// Nothing happens before the first event is asked for. When the loop over the events ends or
    /// its task is cancelled, the run ends before its next step and is saved.
    public func fineTune(
        on data: URL, savingTo folder: URL, options: FineTuningOptions = FineTuningOptions(),
        resuming: Bool = false
    ) -> FineTuning {
        let engine = self.engine
        return FineTuning {
            try FinetuneRun(
                engine: engine, data: data.path, folder: folder.path, options: options.bound(),
                resume: resuming)
        }
    }
}

/// The events of a fine-tuning; see ``LanguageModel/fineTune(on:savingTo:options:resuming:)``.
public struct FineTuning: AsyncSequence, Sendable {
    /// An event.
    public typealias Element = FineTuningEvent

    let stream: EventStream<FinetuneRun>

    init(_ start: @escaping @Sendable () throws -> FinetuneRun) {
        stream = EventStream(start: start)
    }

    /// Begins to train with the first event that is asked for.
    public func makeAsyncIterator() -> Iterator { Iterator(events: stream.makeAsyncIterator()) }

    /// The events, one after the other.
    public struct Iterator: AsyncIteratorProtocol {
        var events: EventStream<FinetuneRun>.Iterator

        /// The next event; `nil` after the last.
        public mutating func next() async throws -> FineTuningEvent? {
            try await events.next().map(FineTuningEvent.init)
        }
    }
}

extension FineTuningEvent {
    init(_ event: FinetuneEvent) {
        switch event {
        case .step(
            let iteration, let loss, let targets, let learningRate, let tokensPerSecond,
            let trainedTokens, let peakBytes):
            self = .step(
                FineTuningStep(
                    iteration: Int(iteration), loss: loss, targets: Int(targets),
                    learningRate: learningRate, tokensPerSecond: tokensPerSecond,
                    trainedTokens: Int(trainedTokens), peakBytes: Int(peakBytes)))
        case .validation(let iteration, let loss, let best):
            self = .validation(iteration: Int(iteration), loss: loss, isBest: best)
        case .saved(let iteration): self = .saved(iteration: Int(iteration))
        case .finished(let iteration, let reason, let bestIteration, let bestLoss):
            let why: FineTuningEnd =
                switch reason {
                case .iterations: .iterations
                case .patience: .patience
                case .cancelled: .cancelled
                }
            var best: BestIteration?
            if let bestIteration, let bestLoss {
                best = BestIteration(iteration: Int(bestIteration), loss: bestLoss)
            }
            self = .finished(iteration: Int(iteration), reason: why, best: best)
        }
    }
}
