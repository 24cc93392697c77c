// swift-format-ignore-file
// A stub of the names of BackgroundTasks used by the package and its documentation, to type-check
// both on Linux (`swift/check-docs.sh`). Declarations with the shape of Apple's, without behaviour.
@_exported import Foundation

open class BGTask: NSObject {
    public var expirationHandler: (() -> Void)?
    public func setTaskCompleted(success: Bool) {}
}
open class BGProcessingTask: BGTask {}
open class BGContinuedProcessingTask: BGTask, ProgressReporting {
    public var progress: Progress { fatalError("a stub") }
}
open class BGTaskRequest: NSObject {
    public var earliestBeginDate: Date?
}
open class BGProcessingTaskRequest: BGTaskRequest {
    public init(identifier: String) {}
    public var requiresNetworkConnectivity = false
    public var requiresExternalPower = false
}
open class BGContinuedProcessingTaskRequest: BGTaskRequest {
    public struct Resources: OptionSet, Sendable {
        public let rawValue: Int
        public init(rawValue: Int) { self.rawValue = rawValue }
        public static let gpu = Resources(rawValue: 1)
    }
    public init(identifier: String, title: String, subtitle: String) {}
    public var requiredResources: Resources = []
}
open class BGTaskScheduler: NSObject {
    public class var shared: BGTaskScheduler { fatalError("a stub") }
    public class var supportedResources: BGContinuedProcessingTaskRequest.Resources { [] }
    @discardableResult public func register(
        forTaskWithIdentifier identifier: String, using queue: DispatchQueue?,
        launchHandler: @escaping (BGTask) -> Void
    ) -> Bool { false }
    public func submit(_ request: BGTaskRequest) throws {}
    public func cancel(taskRequestWithIdentifier identifier: String) {}
}
