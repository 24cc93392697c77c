import Foundation
internal import OpenELMBindings

#if canImport(Metal)
    import Metal
#endif

/// MLX's GPU kernels: resources of this package, one file per platform, named after MLX's version.
/// MLX does not check the version, and gives wrong results with kernels of another version.
enum Kernels {
    /// A platform with a GPU for MLX. The iOS simulator has none.
    enum Platform: String, CaseIterable {
        case macOS = "macos"
        case iOS = "ios"
    }

    /// The platform of this build, if the library takes its kernels from this package.
    static var platform: Platform? {
        #if OPENELM_SYSTEM_LIBRARY || targetEnvironment(simulator)
            nil
        #elseif os(macOS)
            .macOS
        #elseif os(iOS)
            .iOS
        #else
            nil
        #endif
    }

    /// The folder of kernels in this package.
    static var folder: URL {
        (Bundle.module.resourceURL ?? Bundle.module.bundleURL).appending(path: "Kernels")
    }

    /// The file name of the kernels for MLX `version`.
    static func fileName(version: String, platform: Platform) -> String {
        "mlx-\(version)-\(platform.rawValue).metallib"
    }

    /// The kernels in `folder` for MLX `version`.
    static func file(in folder: URL, version: String, platform: Platform) throws -> URL {
        let expected = fileName(version: version, platform: platform)
        let file = folder.appending(path: expected)
        if FileManager.default.fileExists(atPath: file.path) { return file }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        let others = names.filter {
            $0.hasPrefix("mlx-") && $0.hasSuffix("-\(platform.rawValue).metallib")
        }.sorted()
        let found = others.isEmpty ? "none" : others.joined(separator: ", ")
        throw OpenELMError.invalidKernels(
            path: file.path,
            message: "\(file.path): expected the GPU kernels of MLX \(version), \(expected), "
                + "found \(found)")
    }

    /// Sets MLX's kernels. MLX loads them at the first use of the GPU, so call this earlier.
    static func use() throws {
        guard let platform else { return }
        try checkDevice()
        let version = try translated { try mlxVersion() }
        try use(try file(in: folder, version: version, platform: platform))
    }

    /// Refuses a GPU without SIMD-group matrices, which MLX's kernels need: they came with the
    /// GPUs of A14 and M1. Without the check, the first matrix product fails.
    private static func checkDevice() throws {
        #if canImport(Metal) && !targetEnvironment(simulator)
            if let device = MTLCreateSystemDefaultDevice(), !device.supportsFamily(.apple7) {
                throw OpenELMError.unsupportedDevice(name: device.name)
            }
        #endif
    }

    /// Sets `file` as MLX's kernels; the library checks the version again.
    static func use(_ file: URL) throws {
        do { try setMetallib(path: file.path) } catch {
            let message = OpenELMError.from(error).localizedDescription
            throw OpenELMError.invalidKernels(path: file.path, message: message)
        }
    }
}
