import Foundation

/// The bytes that are free on the disk of `folder`, which need not exist; `nil` if the system does
/// not report them.
func systemFreeSpace(_ folder: URL) -> Int? {
    var existing = folder.standardizedFileURL
    while existing.pathComponents.count > 1,
        !FileManager.default.fileExists(atPath: existing.path)
    { existing.deleteLastPathComponent() }
    #if canImport(Darwin)
        // Includes space that the system frees for a download that the user has requested.
        let key = URLResourceKey.volumeAvailableCapacityForImportantUsageKey
        let values = try? existing.resourceValues(forKeys: [key])
        return values?.volumeAvailableCapacityForImportantUsage.map { Int(clamping: $0) }
    #else
        let values = try? FileManager.default.attributesOfFileSystem(forPath: existing.path)
        return (values?[.systemFreeSize] as? NSNumber)?.intValue
    #endif
}
