import Foundation

/// The path of the argument `name`, which must be a file URL: no other address is read or written.
func filePath(_ url: URL, _ name: String) throws -> String {
    guard url.isFileURL else {
        // Not the whole address, which may contain a password.
        let found = url.scheme.map { "the scheme \($0)" } ?? "no scheme"
        let message =
            "\(name): expected a file URL, as URL(filePath:) makes, found \(found); "
            + "download files first, with ModelStore for example"
        throw OpenELMError.invalidOption(name: name, message: message)
    }
    return url.path
}
