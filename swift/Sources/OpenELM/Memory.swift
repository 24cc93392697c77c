import Foundation
internal import OpenELMBindings

#if canImport(UIKit)
    import UIKit
#endif
#if os(iOS)
    import os
#endif

/// The memory that MLX takes in this process, and pausing what runs.
public enum Memory {
    /// Bytes that MLX takes.
    public struct Statistics: Sendable, Equatable {
        /// Of arrays in use.
        public let active: Int
        /// Kept to be used again.
        public let cache: Int
        /// The most that arrays took at one time.
        public let peak: Int
    }

    /// What MLX takes now.
    public static var statistics: Statistics {
        get throws {
            try prepare()
            let now = try translated { try memoryStatistics() }
            return Statistics(active: Int(now.active), cache: Int(now.cache), peak: Int(now.peak))
        }
    }

    /// An estimate, from above, of the bytes that the model in `folder` takes with one text of
    /// `context` tokens, `nil` as many as it holds. No weight is read.
    public static func estimatedMemory(
        of folder: URL, configuration: LanguageModel.Configuration = .init(), context: Int? = nil
    ) throws -> Int {
        try prepare()
        let context = try context.map { try count("context", $0) }
        let estimate = try translated {
            try estimateMemory(path: folder.path, options: configuration.bound, context: context)
        }
        return Int(estimate.weights + estimate.kvCache + estimate.working)
    }

    /// Bytes that this process may still take, where the system says so: iOS and Linux.
    public static var available: Int? {
        get throws {
            #if os(iOS)
                return os_proc_available_memory()
            #else
                try prepare()
                return try translated { try memoryStatistics() }.available.map(Int.init)
            #endif
        }
    }

    /// Sets how many bytes MLX may keep to use again. This package begins with 32 MiB.
    public static func setCacheLimit(_ bytes: Int) throws {
        try prepare()
        let limit = try count("cacheLimit", bytes)
        _ = try translated { try setMemoryCacheLimit(bytes: limit) }
    }

    /// Gives back what MLX keeps to use again.
    public static func clearCache() throws {
        try prepare()
        try translated { try clearMemoryCache() }
    }

    /// Holds everything before its next token, and gives back what MLX keeps to use again. Waits up
    /// to a second for what is under way; returns whether all rests.
    @discardableResult
    public static func pause() throws -> Bool {
        let rests = try translated { try OpenELMBindings.pause(waitMilliseconds: 1000) }
        try clearCache()
        return rests
    }

    /// Goes on after ``pause()``.
    public static func resume() throws {
        try translated { try OpenELMBindings.resume() }
    }

    /// Once, before anything asks MLX: the kernels, a low cache limit, the observers.
    static func prepare() throws { try prepared.get() }

    private static let prepared = Result<Void, any Error> {
        try Kernels.use()
        _ = try translated { try setMemoryCacheLimit(bytes: 32 << 20) }
        #if canImport(UIKit)
            observe()
        #endif
    }

    #if canImport(UIKit)
        /// iOS ends apps that use the GPU in the background.
        private static func observe() {
            let center = NotificationCenter.default
            for name in [
                UIApplication.didEnterBackgroundNotification,
                UIApplication.willEnterForegroundNotification,
                UIApplication.didReceiveMemoryWarningNotification,
            ] {
                center.addObserver(forName: name, object: nil, queue: nil) { note in
                    switch note.name {
                    case UIApplication.didEnterBackgroundNotification: _ = try? pause()
                    case UIApplication.willEnterForegroundNotification: try? resume()
                    default: try? clearCache()
                    }
                }
            }
        }
    #endif
}
