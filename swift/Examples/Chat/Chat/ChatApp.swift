// The app: one target for iOS and macOS. Where there is no SwiftUI it only says so.
#if canImport(SwiftUI)
    import SwiftUI

    @main struct ChatApp: App {
        @State private var chat = ChatModel()

        var body: some Scene {
            WindowGroup { ChatView(chat: chat) }
        }
    }
#else
    @main enum ChatApp {
        static func main() { print("openelm-chat shows itself with SwiftUI, on iOS and macOS") }
    }
#endif
