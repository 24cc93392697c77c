import Foundation
internal import OpenELMBindings

/// An error with a message and a recovery suggestion.
public enum OpenELMError: Error, Sendable, Equatable {
    /// A file or folder cannot be read or written.
    case io(path: String, message: String)
    /// A file of a model, adapter or run is missing.
    case missingFile(path: String, message: String)
    /// A model's configuration is malformed or not supported.
    case invalidConfig(path: String, message: String)
    /// A weight file is malformed or does not fit the configuration.
    case invalidCheckpoint(path: String, message: String)
    /// A tokenizer is malformed or does not fit the model.
    case invalidTokenizer(path: String, message: String)
    /// A file of training data is malformed, at `line` (from 1) if known.
    case invalidData(path: String, line: Int?, message: String)
    /// An adapter is malformed or does not fit the model.
    case invalidAdapter(path: String, message: String)
    /// An option is out of range. `name` is the option's name in this package.
    case invalidOption(name: String, message: String)
    /// The prompt and the conversation before it exceed the model's context.
    case exceededContextWindowSize(tokens: Int, context: Int)
    /// A guided text reached its limit after `tokens` tokens and is incomplete.
    case incomplete(tokens: Int)
    /// A guided text is not a value of the requested type.
    case undecodable(text: String, message: String)
    /// The session is already answering.
    case concurrentRequests
    /// The model was unloaded.
    case unloaded
    /// An output file or folder cannot be created at this path.
    case destination(path: String, message: String)
    /// A fine-tuning run cannot be resumed because its options or data differ.
    case otherRun(path: String, differences: [RunDifference])
    /// A converted model differs from its source; the result was not kept.
    case verification(path: String, message: String)
    /// The training loss is not a finite number.
    case diverged(iteration: Int, loss: Float)
    /// A server is not reachable, or does not answer as expected after several attempts.
    case network(source: String, message: String)
    /// A server refuses access to a model.
    case access(source: String, message: String)
    /// A server does not have a repository, revision or file.
    case notFound(source: String, message: String)
    /// A downloaded file differs from its description, or the description is malformed.
    case invalidDownload(source: String, message: String)
    /// A download needs more space than the disk has.
    case insufficientSpace(path: String, needed: Int, available: Int)
    /// Another process of a distributed group failed or is unreachable.
    case distributed(message: String)
    /// MLX's GPU kernels are missing from this package, or are for another version of MLX.
    case invalidKernels(path: String, message: String)
    /// The GPU lacks what MLX's kernels need: an A14 or M1, or a later chip.
    case unsupportedDevice(name: String)
    /// MLX or the GPU reported an error.
    case device(message: String)
    /// The library failed unexpectedly. The call failed; later calls work.
    case unexpected(message: String)
    /// The library has stopped. No later call in this process can succeed.
    case unusable(message: String)
}

/// An option that differs from the saved run.
public struct RunDifference: Sendable, Equatable, CustomStringConvertible {
    /// The option's name in this package, or `data`.
    public let option: String
    /// The value in the saved run.
    public let expected: String
    /// The value in this run.
    public let found: String

    /// The name and both values.
    public var description: String { "\(option): expected \(expected), found \(found)" }

    init(_ difference: OpenELMBindings.RunDifference) {
        option = swiftName(difference.option)
        expected = difference.expected
        found = difference.found
    }
}

extension OpenELMError: LocalizedError {
    /// A description of the error.
    public var errorDescription: String? {
        switch self {
        case .io(_, let message), .missingFile(_, let message), .invalidConfig(_, let message),
            .invalidCheckpoint(_, let message), .invalidTokenizer(_, let message),
            .invalidData(_, _, let message), .invalidAdapter(_, let message),
            .invalidOption(_, let message), .destination(_, let message),
            .verification(_, let message), .network(_, let message), .access(_, let message),
            .notFound(_, let message), .invalidDownload(_, let message),
            .distributed(let message), .invalidKernels(_, let message), .device(let message),
            .unexpected(let message), .unusable(let message):
            message
        case .otherRun(let path, let differences):
            "\(path): the run was begun with other options or data: "
                + differences.map(\.description).joined(separator: "; ")
        case .insufficientSpace(let path, let needed, let available):
            "\(path): expected \(needed) free bytes for the download, found \(available)"
        case .exceededContextWindowSize(let tokens, let context):
            "the prompt has \(tokens) tokens; the model's context holds \(context)"
        case .unsupportedDevice(let name):
            "\(name): this GPU lacks what MLX's kernels need; A14, M1 and later chips have it"
        case .incomplete(let tokens):
            "the text is incomplete after \(tokens) token\(tokens == 1 ? "" : "s")"
        case .undecodable(let text, let message): "cannot decode \(text): \(message)"
        case .concurrentRequests: "the session is already answering"
        case .unloaded: "the model was unloaded"
        case .diverged(let iteration, let loss): "the loss is \(loss) at iteration \(iteration)"
        }
    }

    /// A recovery suggestion.
    public var recoverySuggestion: String? {
        switch self {
        case .io: "Check the path, the app's permissions and the free space."
        case .missingFile: "Add the file, or use the complete folder."
        case .invalidConfig: "Use the configuration of an OpenELM model."
        case .invalidCheckpoint: "Download or convert the model again."
        case .invalidTokenizer: "Put LLaMA's tokenizer.json or tokenizer.model beside the model."
        case .invalidData: "Correct the file: one JSON object per line, all of one kind."
        case .invalidAdapter: "Use an adapter that was trained for this model."
        case .invalidOption("adapter", _): "Add the adapter first, or use a name from adapters."
        case .invalidOption("transcript", _):
            "Begin with instructions or a prompt, alternate prompts and responses, and end with a "
                + "response."
        case .invalidOption: "Choose a valid value."
        case .incomplete: "Allow more tokens, or let guideAtLimit close the text."
        case .undecodable: "Use a schema that fits the type."
        case .exceededContextWindowSize:
            "Shorten the prompt, begin a new session, or set contextOverflow to dropOldestTurns."
        case .concurrentRequests: "Wait for the answer or cancel it, or use a second session."
        case .unloaded: "Load the model again."
        case .destination: "Choose another path, or allow replacing or resuming."
        case .otherRun: "Resume with the run's own options and data, or choose another folder."
        case .verification: "Check the disk, or choose a dtype that holds the weights."
        case .diverged: "Use a lower learning rate."
        case .network:
            "Check the connection and download again: the download continues where it stopped."
        case .access:
            "Accept the model's license on its page, and give the store a token of the account."
        case .notFound: "Check the source's name, revision and addresses, and the store's token."
        case .invalidDownload: "Download again, or use another source."
        case .insufficientSpace: "Free space on the device, or delete other models."
        case .distributed: "Start all processes of the group again."
        case .invalidKernels:
            "Use a tagged release of this package; in a clone, run make xcframework."
        case .unsupportedDevice: "Use a device with an A14 or M1, or a later chip."
        case .device: "Free memory or use a smaller model, then try again."
        case .unexpected: "Try again, and report this message."
        case .unusable: "Restart the app."
        }
    }
}

extension OpenELMError: CustomStringConvertible {
    /// The description of the error, once: the cases' paths are part of their messages.
    public var description: String { errorDescription ?? "" }
}
