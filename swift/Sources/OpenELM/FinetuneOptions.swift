internal import OpenELMBindings

/// The kind of adapter to train.
public enum AdapterKind: Sendable {
    /// Low-rank matrices beside each matrix (LoRA).
    case lora
    /// LoRA, and the magnitude of each row (DoRA).
    case dora
    /// The weights themselves.
    case full
}

/// The optimizer of a fine-tuning.
public enum OptimizerKind: Sendable {
    /// Adam.
    case adam
    /// Adam with decoupled weight decay.
    case adamW
    /// Gradient descent.
    case sgd
    /// Lion.
    case lion
    /// Adafactor.
    case adafactor
}

/// The course of the learning rate after the warm-up.
public enum ScheduleShape: Sendable {
    /// The rate stays.
    case constant
    /// The rate falls evenly to 0.
    case linear
    /// The rate falls to 0 along half a cosine.
    case cosine
}

/// Options of a fine-tuning. The defaults are those of `openelm finetune` and `mlx_lm.lora`.
public struct FinetuneOptions: Sendable, Equatable {
    /// The kind of adapter to train.
    public var fineTuneType = AdapterKind.lora
    /// Rank of the adapter's matrices.
    public var rank = 8
    /// Factor of the adapter's output.
    public var scale: Float = 20
    /// Share of the adapter's input that is dropped in training, in [0, 1).
    public var dropout: Float = 0
    /// Number of layers to train, from the last one back; `nil` is all of them.
    public var numLayers: Int? = 16
    /// Matrices to train in these layers, as `attn.qkv_proj`; `nil` is every one.
    public var keys: [String]?
    /// Batches to train on.
    public var iters = 1000
    /// Rows per batch.
    public var batchSize = 4
    /// Most tokens of a row; longer rows are split.
    public var maxSeqLength = 2048
    /// Trains on completions and answers only, not on prompts.
    public var maskPrompt = false
    /// Rows are pairs of a `chosen` and a `rejected` answer (DPO).
    public var preferences = false
    /// The optimizer.
    public var optimizer = OptimizerKind.adam
    /// Learning rate after the warm-up.
    public var learningRate = 1e-5
    /// The course of the learning rate after the warm-up.
    public var lrSchedule = ScheduleShape.constant
    /// Updates in which the learning rate grows from 0.
    public var warmup = 0
    /// Weight decay of AdamW, Lion, Adafactor and SGD; Adam has none.
    public var weightDecay: Float = 0
    /// Batches whose gradients are averaged into one update.
    public var gradAccumulationSteps = 1
    /// Computes activations again instead of keeping them: less memory, a third slower.
    public var gradCheckpoint = false
    /// Largest norm of the gradient; `nil` does not clip it.
    public var clipNorm: Float?
    /// Batches between validations.
    public var stepsPerEval = 200
    /// Most batches of a validation; `nil` is all rows.
    public var valBatches: Int? = 25
    /// Batches between saves.
    public var saveEvery = 100
    /// Validations in a row without a lower loss that end the run; `nil` does not end it.
    public var patience: Int?
    /// Seed of the adapter, of the order of rows and of dropout.
    public var seed: UInt64 = 0

    /// The defaults.
    public init() {}

    func ffiOptions() throws -> OpenELMBindings.FinetuneOptions {
        OpenELMBindings.FinetuneOptions(
            fineTuneType: fineTuneType.ffi,
            rank: try count("rank", rank), scale: scale, dropout: dropout,
            numLayers: try numLayers.map { try count("numLayers", $0) }, keys: keys,
            iters: try count("iters", iters), batchSize: try count("batchSize", batchSize),
            maxSeqLength: try count("maxSeqLength", maxSeqLength), maskPrompt: maskPrompt,
            preferences: preferences, optimizer: optimizer.ffi, learningRate: learningRate,
            lrSchedule: lrSchedule.ffi, warmup: try count("warmup", warmup),
            weightDecay: weightDecay,
            gradAccumulationSteps: try count("gradAccumulationSteps", gradAccumulationSteps),
            gradCheckpoint: gradCheckpoint, clipNorm: clipNorm,
            stepsPerEval: try count("stepsPerEval", stepsPerEval),
            valBatches: try valBatches.map { try count("valBatches", $0) },
            saveEvery: try count("saveEvery", saveEvery),
            patience: try patience.map { try smallCount("patience", $0) }, seed: seed)
    }
}

extension AdapterKind {
    fileprivate var ffi: OpenELMBindings.AdapterKind {
        switch self {
        case .lora: .lora
        case .dora: .dora
        case .full: .full
        }
    }
}

extension OptimizerKind {
    fileprivate var ffi: OpenELMBindings.OptimizerKind {
        switch self {
        case .adam: .adam
        case .adamW: .adamW
        case .sgd: .sgd
        case .lion: .lion
        case .adafactor: .adafactor
        }
    }
}

extension ScheduleShape {
    fileprivate var ffi: OpenELMBindings.ScheduleShape {
        switch self {
        case .constant: .constant
        case .linear: .linear
        case .cosine: .cosine
        }
    }
}
