// swift-format-ignore-file
// A stub of the names of UIKit and of Apple's Foundation used by the package, to type-check its
// code for iOS on Linux (`swift/check-docs.sh`). Declarations with the shape of Apple's, without
// behaviour.
@_exported import Foundation

@MainActor public class UIApplication {
    public enum State: Int, Sendable { case active, inactive, background }
    public class var shared: UIApplication { fatalError("a stub") }
    public var applicationState: State { fatalError("a stub") }
    public nonisolated class var willResignActiveNotification: Notification.Name { .init("1") }
    public nonisolated class var didBecomeActiveNotification: Notification.Name { .init("2") }
    public nonisolated class var didEnterBackgroundNotification: Notification.Name { .init("3") }
    public nonisolated class var willEnterForegroundNotification: Notification.Name { .init("4") }
    public nonisolated class var didReceiveMemoryWarningNotification: Notification.Name { .init("5") }
}
extension ProcessInfo {
    public enum ThermalState: Int, Sendable { case nominal, fair, serious, critical }
    public class var thermalStateDidChangeNotification: Notification.Name { .init("6") }
    public var thermalState: ThermalState { fatalError("a stub") }
    public var isLowPowerModeEnabled: Bool { fatalError("a stub") }
}
extension Notification.Name {
    public static var NSProcessInfoPowerStateDidChange: Notification.Name { .init("7") }
}
