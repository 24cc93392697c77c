import Foundation

#if canImport(UIKit)
    import UIKit
#endif

/// A reason why a fine-tuning is paused.
public enum PauseReason: Sendable, Hashable, CaseIterable {
    /// The device is hot: its thermal state is serious or critical, or was so until shortly before.
    case thermalState
    /// Low Power Mode is on.
    case lowPowerMode
    /// The app is not active, or iOS refuses work in the background.
    case background
    /// ``FinetuneTask/pause()`` was called.
    case user
}

/// The state of the app and its device, as far as training depends on it.
public struct TrainingConditions: Sendable, Equatable {
    /// The thermal state of a device, as in `ProcessInfo`.
    public enum ThermalState: Int, Sendable, Comparable {
        /// Within normal limits.
        case nominal
        /// Slightly elevated.
        case fair
        /// High: the system reduces its performance.
        case serious
        /// So high that the device must cool down.
        case critical

        /// Compares by temperature.
        public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    /// The thermal state of the device.
    public var thermalState: ThermalState
    /// A Boolean value that is true in Low Power Mode.
    public var isLowPowerModeEnabled: Bool
    /// A Boolean value that is true while the app is not active. On macOS it is always false.
    public var isInBackground: Bool

    /// Creates conditions; by default those of an active app on a cool device.
    public init(
        thermalState: ThermalState = .nominal, isLowPowerModeEnabled: Bool = false,
        isInBackground: Bool = false
    ) {
        self.thermalState = thermalState
        self.isLowPowerModeEnabled = isLowPowerModeEnabled
        self.isInBackground = isInBackground
    }

    /// A Boolean value that is true in the thermal states `serious` and `critical`.
    var isHot: Bool { thermalState >= .serious }

    /// The current conditions, and the new ones after each change. On Linux they never change.
    public static func updates() -> AsyncStream<TrainingConditions> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: TrainingConditions.self, bufferingPolicy: .bufferingNewest(1))
        #if canImport(UIKit) || os(macOS)
            let observer = Task { await observe(continuation) }
            continuation.onTermination = { _ in observer.cancel() }
        #else
            continuation.yield(TrainingConditions())
        #endif
        return stream
    }
}

#if canImport(UIKit) || os(macOS)
    extension TrainingConditions {
        /// Sends the conditions to `continuation` until the task is cancelled.
        @MainActor private static func observe(
            _ continuation: AsyncStream<TrainingConditions>.Continuation
        ) async {
            var names = [
                ProcessInfo.thermalStateDidChangeNotification,
                Notification.Name.NSProcessInfoPowerStateDidChange,
            ]
            var isInBackground = false
            #if canImport(UIKit)
                names += [
                    UIApplication.willResignActiveNotification,
                    UIApplication.didBecomeActiveNotification,
                ]
                isInBackground = UIApplication.shared.applicationState != .active
            #endif
            let (changes, change) = AsyncStream.makeStream(of: Notification.Name.self)
            let center = NotificationCenter.default
            let tokens = names.map { name in
                center.addObserver(forName: name, object: nil, queue: nil) { change.yield($0.name) }
            }
            continuation.yield(now(isInBackground))
            for await name in changes {
                #if canImport(UIKit)
                    // The app may use the GPU for a short time after this notification, and not
                    // after the later one of the background.
                    if name == UIApplication.willResignActiveNotification { isInBackground = true }
                    if name == UIApplication.didBecomeActiveNotification { isInBackground = false }
                #endif
                continuation.yield(now(isInBackground))
            }
            tokens.forEach(center.removeObserver)
        }

        private static func now(_ isInBackground: Bool) -> TrainingConditions {
            let process = ProcessInfo.processInfo
            return TrainingConditions(
                thermalState: ThermalState(rawValue: process.thermalState.rawValue) ?? .critical,
                isLowPowerModeEnabled: process.isLowPowerModeEnabled,
                isInBackground: isInBackground)
        }
    }
#endif
