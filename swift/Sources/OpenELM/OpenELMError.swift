import Foundation
internal import OpenELMBindings

/// What can go wrong, with what was found and what to do next.
public enum OpenELMError: Error, Sendable, Equatable {
    /// A file or folder cannot be read or written.
    case fileAccess(path: String, message: String)
    /// A file that the model, adapter or run needs is not there.
    case missingFile(path: String, message: String)
    /// A model's files are malformed, contradict each other, or are not an OpenELM's.
    case invalidModel(path: String, message: String)
    /// A tokenizer is malformed or does not fit the model.
    case invalidTokenizer(path: String, message: String)
    /// A file of training data is malformed, at `line` if that is known.
    case invalidData(path: String, line: Int?, message: String)
    /// An adapter is malformed or does not fit the model.
    case invalidAdapter(path: String, message: String)
    /// An option lies outside its range.
    case invalidOption(name: String, message: String)
    /// The prompt, with what was said before it, is longer than the model's context.
    case exceededContextWindowSize(tokens: Int, context: Int)
    /// A session was asked while it was answering.
    case concurrentRequests
    /// The model was unloaded.
    case unloaded
    /// What a conversion or fine-tuning was to make cannot be put where it was to go.
    case targetExists(path: String, message: String)
    /// What a conversion wrote is not what it read; nothing was kept.
    case verificationFailed(path: String, message: String)
    /// Training came to a loss that is no number.
    case diverged(iteration: Int, loss: Float)
    /// The GPU kernels of MLX are missing from this package, or are those of another version.
    case invalidKernels(path: String, message: String)
    /// MLX or the GPU reported a failure.
    case device(message: String)
    /// The library failed in a way that it should not; the call is lost, the rest goes on.
    case unexpected(message: String)
    /// Nothing more can be done in this process.
    case unusable(message: String)
}

extension OpenELMError: LocalizedError {
    /// What went wrong.
    public var errorDescription: String? {
        switch self {
        case .fileAccess(_, let message), .missingFile(_, let message),
            .invalidModel(_, let message), .invalidTokenizer(_, let message),
            .invalidData(_, _, let message), .invalidAdapter(_, let message),
            .invalidOption(_, let message), .targetExists(_, let message),
            .verificationFailed(_, let message), .invalidKernels(_, let message),
            .device(let message),
            .unexpected(let message), .unusable(let message):
            message
        case .exceededContextWindowSize(let tokens, let context):
            "the prompt has \(tokens) tokens; the model's context holds \(context)"
        case .concurrentRequests: "the session is answering already"
        case .unloaded: "the model was unloaded"
        case .diverged(let iteration, let loss): "the loss is \(loss) at iteration \(iteration)"
        }
    }

    /// What to do next.
    public var recoverySuggestion: String? {
        switch self {
        case .fileAccess: "Check the path and the app's permissions."
        case .missingFile: "Give the folder of a whole model or adapter, as downloaded."
        case .invalidModel: "Download or convert the model again."
        case .invalidTokenizer: "Put LLaMA's tokenizer.json or tokenizer.model beside the model."
        case .invalidData: "Correct the file; rows are JSON objects of one kind, one a line."
        case .invalidAdapter: "Use an adapter that was trained for this model."
        case .invalidOption: "Choose a value within the range."
        case .exceededContextWindowSize: "Shorten the prompt, or begin a new session."
        case .concurrentRequests: "Wait for the answer or cancel it, or use a second session."
        case .unloaded: "Load the model again."
        case .targetExists: "Choose another place, or allow it to be replaced or resumed."
        case .verificationFailed: "Check the disk and convert again."
        case .diverged: "Use a lower learning rate."
        case .invalidKernels:
            "Use a release of this package as it is tagged; from a clone, run make xcframework."
        case .device: "Free memory or use a smaller model, then try again."
        case .unexpected: "Try again, and report it with this message."
        case .unusable: "Start the app again."
        }
    }
}

extension OpenELMError {
    /// The error as this module's, or Swift's own for what was cancelled.
    static func from(_ error: any Error) -> any Error {
        guard let error = error as? EngineError else {
            return error is CancellationError || error is OpenELMError
                ? error : OpenELMError.unexpected(message: String(describing: error))
        }
        return switch error {
        case .Io(let path, let message): fileAccess(path: path, message: message)
        case .MissingFile(let path, let message): missingFile(path: path, message: message)
        case .Config(let path, _, let message), .Checkpoint(let path, let message),
            .MissingTensor(let path, _, let message),
            .UnexpectedTensor(let path, _, let message),
            .TensorShape(let path, _, _, _, let message),
            .TensorDtype(let path, _, _, let message):
            invalidModel(path: path, message: message)
        case .Tokenizer(let path, let message): invalidTokenizer(path: path, message: message)
        case .Data(let path, let line, let message):
            invalidData(path: path, line: line.map(Int.init), message: message)
        case .Adapter(let path, let message): invalidAdapter(path: path, message: message)
        case .Dtype(_, let message): invalidOption(name: "dtype", message: message)
        case .Option(let name, let message):
            invalidOption(name: optionName(name), message: message)
        case .PromptTooLong(let tokens, let context, _):
            exceededContextWindowSize(tokens: Int(tokens), context: Int(context))
        case .Busy: concurrentRequests
        case .Unloaded: unloaded
        case .Target(let path, let message): targetExists(path: path, message: message)
        case .Verification(let path, let message):
            verificationFailed(path: path, message: message)
        case .Diverged(let iteration, let loss, _):
            diverged(iteration: Int(iteration), loss: loss)
        case .Cancelled: CancellationError()
        case .Mlx(let message): device(message: message)
        case .Panicked(let message): unexpected(message: message)
        case .Unusable(let message): unusable(message: message)
        }
    }
}

/// What an option of the library, as `prefill_chunk` or `batch_size`, is called here.
private func optionName(_ name: String) -> String {
    if let own = ownNames[name] { return own }
    let words = name.split(separator: "_")
    return words.prefix(1).joined() + words.dropFirst().map(\.capitalized).joined()
}

private let ownNames = [
    "top_p": "probabilityThreshold", "iters": "iterations", "num_layers": "layers",
    "keys": "modules", "max_seq_length": "maximumSequenceLength",
    "grad_accumulation_steps": "accumulationSteps", "gguf_type": "type",
]

/// Runs `body`; its errors come out as this module's.
func translated<T>(_ body: () throws -> T) throws -> T {
    do { return try body() } catch { throw OpenELMError.from(error) }
}

/// Runs `body`; its errors come out as this module's.
func translated<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
    do { return try await body() } catch { throw OpenELMError.from(error) }
}
