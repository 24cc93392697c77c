internal import OpenELMBindings

/// The parameters to train.
public enum AdapterKind: Sendable {
    /// Low-rank adapters (LoRA).
    case lora
    /// Low-rank adapters and the magnitude of each row (DoRA).
    case dora
    /// All weights of the trained layers.
    case full
}

/// The optimizer of a fine-tuning run.
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

/// The learning rate schedule after the warm-up.
public enum ScheduleShape: Sendable {
    /// A constant rate.
    case constant
    /// Linear decay to 0.
    case linear
    /// Cosine decay to 0.
    case cosine
    /// CoreNet's cosine, to 0.
    case coreNet
}

/// Options for a fine-tuning run. Defaults match `openelm finetune` and `mlx_lm.lora`.
public struct FinetuneOptions: Sendable, Equatable {
    /// The parameters to train.
    public var fineTuneType = AdapterKind.lora
    /// The rank of the adapter.
    public var rank = 8
    /// The scale of the adapter's output.
    public var scale: Float = 20
    /// The dropout probability of the adapter's input, in [0, 1).
    public var dropout: Float = 0
    /// The number of layers to train, counted from the last; `nil` trains all.
    public var numLayers: Int? = 16
    /// Matrices to train in these layers, such as `attn.qkv_proj`; `nil` trains all linear layers.
    public var keys: [String]?
    /// The number of batches to train on.
    public var iters = 1000
    /// Rows per batch.
    public var batchSize = 4
    /// The maximum number of tokens per row; longer rows are split.
    public var maxSeqLength = 2048
    /// Trains on completions and answers only, not on prompts.
    public var maskPrompt = false
    /// Trains on preference pairs of a `chosen` and a `rejected` answer (DPO).
    public var preferences = false
    /// The optimizer.
    public var optimizer = OptimizerKind.adam
    /// The learning rate after the warm-up.
    public var learningRate = 1e-5
    /// The learning rate schedule after the warm-up.
    public var lrSchedule = ScheduleShape.constant
    /// The number of warm-up updates, from a learning rate of 0.
    public var warmup = 0
    /// Weight decay of AdamW, Lion, Adafactor and SGD; Adam has none.
    public var weightDecay: Float = 0
    /// Batches per update (gradient accumulation).
    public var gradAccumulationSteps = 1
    /// Recomputes activations in the backward pass (gradient checkpointing): less memory, a third
    /// slower.
    public var gradCheckpoint = false
    /// The maximum norm of the gradient; `nil` disables clipping.
    public var clipNorm: Float?
    /// Batches between validations.
    public var stepsPerEval = 200
    /// The maximum number of batches per validation; `nil` uses all rows.
    public var valBatches: Int? = 25
    /// Batches between checkpoints.
    public var saveEvery = 100
    /// Consecutive validations without a lower loss before the run ends; `nil` disables early
    /// stopping.
    public var patience: Int?
    /// The random seed of the adapter, the row order and dropout.
    public var seed: UInt64 = 0

    /// Creates options with default values.
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
        case .coreNet: .coreNet
        }
    }
}
