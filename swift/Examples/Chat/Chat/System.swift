#if canImport(SwiftUI)
    import Accessibility
    import SwiftUI

    #if canImport(UIKit)
        import UIKit
    #elseif canImport(AppKit)
        import AppKit
    #endif

    extension ChatEnvironment {
        /// The app's own folders, with the pasteboard and VoiceOver.
        static func system() -> ChatEnvironment {
            var environment = standard()
            environment.announce = { AccessibilityNotification.Announcement($0).post() }
            environment.copy = { text in
                #if canImport(UIKit)
                    UIPasteboard.general.string = text
                #elseif canImport(AppKit)
                    NSPasteboard.general.clearContents()
                    NSPasteboard.general.setString(text, forType: .string)
                #endif
            }
            return environment
        }
    }
#endif
