// The app: one target for iOS and macOS. Without SwiftUI it prints a message.
#if canImport(SwiftUI)
    import SwiftUI

    @main struct ChatApp: App {
        @State private var chat = ChatModel(environment: .system())

        var body: some Scene {
            WindowGroup { ChatView(chat: chat) }
        }
    }
#else
    @main enum ChatApp {
        static func main() { print("openelm-chat needs SwiftUI, on iOS or macOS") }
    }
#endif
