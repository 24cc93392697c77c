// swift-format-ignore-file
// A stub, see SwiftUI.swift.
public struct UTType: Sendable {
    public static let (data, folder, json, plainText) = (Self(), Self(), Self(), Self())
}
