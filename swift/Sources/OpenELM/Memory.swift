import Foundation
internal import OpenELMBindings

#if canImport(UIKit)
    import UIKit
#endif
#if os(iOS)
    import os
#endif

/// MLX's memory in this process, and pausing of all work.
public enum Memory {
    /// MLX's memory, in bytes.
    public struct Statistics: Sendable, Hashable, Codable {
        /// Bytes of arrays in use.
        public let active: Int
        /// Bytes in MLX's buffer cache.
        public let cache: Int
        /// The peak of `active`.
        public let peak: Int
    }

    /// MLX's current memory use.
    public static var statistics: Statistics {
        get throws {
            try prepare()
            let now = try translated { try memoryStatistics() }
            return Statistics(active: Int(now.active), cache: Int(now.cache), peak: Int(now.peak))
        }
    }

    /// Returns an upper estimate, in bytes, of the memory for the model in `folder` and one text of
    /// `context` tokens; `nil` is the model's full context. Weights are not read.
    public static func estimatedMemory(
        of folder: URL, options: LoadOptions = .init(), context: Int? = nil
    ) throws -> Int {
        try prepare()
        let context = try context.map { try count("context", $0) }
        let path = try filePath(folder, "folder")
        let options = try options.ffiOptions()
        let estimate = try translated {
            try estimateMemory(path: path, options: options, context: context)
        }
        return Int(estimate.weights + estimate.kvCache + estimate.working)
    }

    /// Bytes that this process can still allocate; `nil` if the system does not report it.
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

    /// Sets the limit of MLX's buffer cache for all work, in bytes. By default it depends on the
    /// work: small while tokens are generated, larger while a prompt is read and while training.
    public static func setCacheLimit(_ bytes: Int) throws {
        try prepare()
        let limit = try count("cacheLimit", bytes)
        _ = try translated { try setMemoryCacheLimit(bytes: limit) }
    }

    /// Frees the buffers in MLX's cache, and the keys and values that are kept for later requests.
    public static func clearCache() throws {
        try prepare()
        try translated { try clearMemoryCache() }
    }

    /// Pauses all work before its next token, prompt chunk, training batch or tensor, and frees the
    /// buffers in MLX's cache. Blocks the calling thread for up to four seconds, until the work in
    /// progress has ended: iOS gives an app that enters the background about five. Returns true if
    /// nothing is in progress, on the GPU either. Each call needs its own ``resume()``, so that an
    /// app and the package, which pauses in the background, do not end each other's pause.
    @discardableResult
    public static func pause() throws -> Bool {
        let isIdle = try translated { try OpenELMBindings.pause(waitMilliseconds: 4000) }
        try clearCache()
        return isIdle
    }

    /// Like the other `pause()`, without blocking the calling thread.
    @discardableResult
    public static func pause() async throws -> Bool {
        let isIdle = try await translated { try await pauseAsync(waitMilliseconds: 4000) }
        try clearCache()
        return isIdle
    }

    /// Takes a `pause()` back; work continues after the last one. Has no effect without a pause.
    public static func resume() throws {
        try translated { try OpenELMBindings.resume() }
    }

    /// Sets kernels and observers, once, before the first call to MLX.
    static func prepare() throws { try prepared.get() }

    private static let prepared = Result<Void, any Error> {
        try Kernels.use()
        // Makes the device, so that MLX's error is thrown here if its kernels cannot be loaded.
        _ = try translated { try memoryStatistics() }
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
                _ = center.addObserver(forName: name, object: nil, queue: nil) { note in
                    switch note.name {
                    case UIApplication.didEnterBackgroundNotification:
                        BackgroundPause.shared.enterBackground()
                    case UIApplication.willEnterForegroundNotification:
                        BackgroundPause.shared.enterForeground()
                    default: try? clearCache()
                    }
                }
            }
        }
    #endif
}
