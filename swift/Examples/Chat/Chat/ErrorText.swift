import Foundation
import OpenELM

/// Returns an error's message and recovery suggestion.
func errorText(_ error: any Error) -> String {
    guard let error = error as? OpenELMError else { return error.localizedDescription }
    return [error.errorDescription, error.recoverySuggestion].compactMap(\.self)
        .joined(separator: ". ")
}

/// An error of the app with a text for the user.
struct ChatError: LocalizedError, Equatable {
    let errorDescription: String?

    init(_ text: String) { errorDescription = text }
}
