internal import OpenELMBindings

/// The parameters to train.
public enum AdapterKind: String, Sendable, Codable, CaseIterable {
    /// Low-rank adapters (LoRA).
    case lora
    /// Low-rank adapters and the magnitude of each row (DoRA).
    case dora
    /// All weights of the trained layers.
    case full
}

/// The optimizer of a fine-tuning run.
public enum OptimizerKind: String, Sendable, Codable, CaseIterable {
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
public enum ScheduleShape: String, Sendable, Codable, CaseIterable {
    /// A constant rate.
    case constant
    /// Linear decay to 0.
    case linear
    /// Cosine decay to 0.
    case cosine
    /// CoreNet's cosine, to 0.
    case coreNet
}

/// The loss of preference pairs (DPO).
public enum PreferenceLoss: String, Sendable, Codable, CaseIterable {
    /// The logistic loss.
    case sigmoid
    /// The hinge loss.
    case hinge
}

/// The treatment of rows that are too long.
public enum LongRows: String, Sendable, Codable, CaseIterable {
    /// Splits them into windows.
    case split
    /// Drops them.
    case drop
}

/// Options for a fine-tuning run. Defaults match `openelm finetune` and `mlx_lm.lora`.
public struct FinetuneOptions: Sendable, Hashable, Codable {
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
    /// The loss of preference pairs.
    public var preferenceLoss = PreferenceLoss.sigmoid
    /// The weight of the reference model in the loss of preference pairs.
    public var beta: Float = 0.01
    /// The treatment of rows with more than ``maxSeqLength`` tokens.
    public var longRows = LongRows.split
    /// The maximum number of tokens of the prompt of a long preference pair; `nil` is no limit.
    public var maxPromptLength: Int?
    /// The template of conversations and instructions; `nil` is OpenELM-Instruct's for
    /// conversations and preferences, and CoreNet's for rows of instructions.
    public var chatTemplate: ChatTemplate?
    /// Repairs text with wrong encodings, as ftfy does.
    public var cleanText = false
    /// The optimizer.
    public var optimizer = OptimizerKind.adam
    /// The first decay rate of the moments of Adam, AdamW and Lion; `nil` is 0.9.
    public var beta1: Float?
    /// The second decay rate of the moments; `nil` is 0.999 for Adam and AdamW, 0.99 for Lion.
    public var beta2: Float?
    /// Added to the denominators of Adam and AdamW.
    public var eps: Float = 1e-8
    /// The momentum of SGD.
    public var momentum: Float = 0
    /// Corrects the bias of Adam's moments, which start at zero, as PyTorch does.
    public var biasCorrection = false
    /// The learning rate after the warm-up.
    public var learningRate = 1e-5
    /// The learning rate schedule after the warm-up.
    public var lrSchedule = ScheduleShape.constant
    /// The final learning rate of a schedule that decays.
    public var lrEnd = 0.0
    /// The number of warm-up updates.
    public var warmup = 0
    /// The learning rate at the beginning of the warm-up.
    public var warmupInit = 0.0
    /// Weight decay of AdamW, Lion, Adafactor and SGD; Adam has none.
    public var weightDecay: Float = 0
    /// The factor of the z-loss, which keeps logits small; 0 disables it.
    public var zLoss: Float = 0
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
            preferences: preferences,
            preferenceLoss: preferenceLoss.ffi, beta: beta, longRows: longRows.ffi,
            maxPromptLength: try maxPromptLength.map { try count("maxPromptLength", $0) },
            chatTemplate: chatTemplate.map(OpenELMBindings.ChatTemplate.init),
            cleanText: cleanText, optimizer: optimizer.ffi, beta1: beta1, beta2: beta2, eps: eps,
            momentum: momentum, biasCorrection: biasCorrection, learningRate: learningRate,
            lrSchedule: lrSchedule.ffi, lrEnd: lrEnd, warmup: try count("warmup", warmup),
            warmupInit: warmupInit, weightDecay: weightDecay, zLoss: zLoss,
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

extension PreferenceLoss {
    fileprivate var ffi: OpenELMBindings.PreferenceLoss {
        switch self {
        case .sigmoid: .sigmoid
        case .hinge: .hinge
        }
    }
}

extension LongRows {
    fileprivate var ffi: OpenELMBindings.LongRows {
        switch self {
        case .split: .split
        case .drop: .drop
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
