// swift-format-ignore-file
// A stub, see SwiftUI.swift.

public enum AccessibilityNotification {
    public struct Announcement: Sendable {
        public init(_ announcement: String) {}
        public func post() {}
    }
}
