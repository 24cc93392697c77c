/// Arguments of the app, for screenshots: `--ask PROMPT` sends a prompt when the model is loaded,
/// `--show NAME` opens a sheet.
struct LaunchArguments: Equatable {
    private(set) var prompt: String?
    private(set) var sheet: ChatSheet?

    /// Reads the arguments; others, such as Xcode's, are skipped.
    init(_ arguments: [String] = CommandLine.arguments) {
        for (name, value) in zip(arguments, arguments.dropFirst()) {
            switch name {
            case "--ask": prompt = value
            case "--show": sheet = ChatSheet(rawValue: value)
            default: break
            }
        }
    }
}

/// A sheet of the app.
enum ChatSheet: String, Identifiable, CaseIterable {
    case models, training, settings
    var id: Self { self }
}
