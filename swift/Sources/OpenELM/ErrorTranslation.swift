import Foundation
internal import OpenELMBindings

extension OpenELMError {
    /// Converts an error of the library to this package's error; cancellation becomes
    /// `CancellationError`.
    static func from(_ error: any Error) -> any Error {
        guard let error = error as? CoreError else {
            return error is CancellationError || error is OpenELMError
                ? error : OpenELMError.unexpected(message: String(describing: error))
        }
        return switch error {
        case .Io(let path, let message): io(path: path, message: message)
        case .MissingFile(let path, let message): missingFile(path: path, message: message)
        case .InvalidConfig(let path, let message): invalidConfig(path: path, message: message)
        case .InvalidCheckpoint(let path, let message):
            invalidCheckpoint(path: path, message: message)
        case .InvalidTokenizer(let path, let message):
            invalidTokenizer(path: path, message: message)
        case .InvalidData(let path, let line, let message):
            invalidData(path: path, line: line.map(Int.init), message: message)
        case .InvalidAdapter(let path, let message): invalidAdapter(path: path, message: message)
        case .InvalidOption(let option, let message): invalidOption(option, message)
        case .PromptTooLong(let tokens, let context, _):
            exceededContextWindowSize(tokens: Int(tokens), context: Int(context))
        case .Incomplete(let tokens, _): incomplete(tokens: Int(clamping: tokens))
        case .Busy: concurrentRequests
        case .Unloaded: unloaded
        case .Destination(let path, let message): destination(path: path, message: message)
        case .OtherRun(let path, let differences, _):
            otherRun(path: path, differences: differences.map(RunDifference.init))
        case .Verification(let path, let message): verification(path: path, message: message)
        case .Diverged(let iteration, let loss, _):
            diverged(iteration: Int(iteration), loss: loss)
        case .Distributed(let message): distributed(message: message)
        case .Cancelled: CancellationError()
        case .Device(let message): device(message: message)
        case .Unexpected(let message): unexpected(message: message)
        case .Unusable(let message): unusable(message: message)
        }
    }

    /// Replaces the core's names of options and roles in the message.
    private static func invalidOption(_ option: String, _ message: String) -> OpenELMError {
        invalidOption(name: swiftName(option), message: swiftWords(message, option))
    }
}

/// The Swift name of the core's option `name`: camel case, or FoundationModels' and mlx-swift-lm's
/// name.
func swiftName(_ name: String) -> String {
    let names = [
        "max_tokens": "maximumResponseTokens", "min_tokens": "minimumResponseTokens",
        "top_k": "top", "top_p": "probabilityThreshold", "max_kv_size": "maxKVSize",
        "quantized_kv_start": "quantizedKVStart", "messages": "transcript",
        "json_schema": "schema", "choice": "choices", "constraint": "guide",
        "at_limit": "guideAtLimit", "draft_model": "draft",
    ]
    if let known = names[name] { return known }
    let words = name.split(separator: "_")
    return words.prefix(1).joined() + words.dropFirst().map(\.capitalized).joined()
}

/// The message of an error of `option` in the words of this package.
private func swiftWords(_ message: String, _ option: String) -> String {
    var message = message
    if message.hasPrefix(option) {
        message = swiftName(option) + message.dropFirst(option.count)
    }
    if option == "messages" {
        for (core, ours) in [
            ("the last message is not the assistant's", "the last message is not a response"),
            (
                "the last message before the answer is not the user's",
                "the last message is not a prompt"
            ),
            ("there is no message of the user", "there is no prompt"),
            ("`user`", "`prompt`"), ("`assistant`", "`response`"), ("`system`", "`instructions`"),
            ("`content`", "`text`"),
        ] {
            message = message.replacingOccurrences(of: core, with: ours)
        }
    }
    // Other options that the message names, but no part of a path or of a file's name.
    let names = #/(^|[\s`(])([a-z]+(?:_[a-z0-9]+)+)(?=$|[\s`),;:])/#
    return message.replacing(names) { "\($0.1)\(swiftName(String($0.2)))" }
}

/// Runs `body` and converts its errors to this package's errors.
func translated<T>(_ body: () throws -> T) throws -> T {
    do { return try body() } catch { throw OpenELMError.from(error) }
}

/// Runs `body` and converts its errors to this package's errors.
func translated<T: Sendable>(_ body: @Sendable () async throws -> T) async throws -> T {
    do { return try await body() } catch { throw OpenELMError.from(error) }
}
