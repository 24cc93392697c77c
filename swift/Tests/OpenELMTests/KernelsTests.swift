import Foundation
import Testing

@testable import OpenELM

@Suite struct KernelsTests {
    /// A folder with empty files of these names.
    func folder(_ names: String...) throws -> URL {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "kernels-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in names { try Data().write(to: folder.appending(path: name)) }
        return folder
    }

    /// The error message for `folder`.
    func problem(_ folder: URL, _ platform: Kernels.Platform) -> String? {
        do {
            let file = try Kernels.file(in: folder, version: "0.32.2", platform: platform)
            Issue.record("\(file.path) was accepted")
            return nil
        } catch OpenELMError.invalidKernels(let path, let message) {
            #expect(path == folder.appending(path: "mlx-0.32.2-\(platform.rawValue).metallib").path)
            return message
        } catch {
            Issue.record(error)
            return nil
        }
    }

    @Test func namesTheKernelsOfEachSystem() throws {
        let names = Kernels.Platform.allCases.map {
            Kernels.fileName(version: "0.32.2", platform: $0)
        }
        #expect(names == ["mlx-0.32.2-macos.metallib", "mlx-0.32.2-ios.metallib"])
        let folder = try folder(names[0], names[1], "mlx-0.31.1-ios.metallib")
        defer { try? FileManager.default.removeItem(at: folder) }
        for (platform, name) in zip(Kernels.Platform.allCases, names) {
            let file = try Kernels.file(in: folder, version: "0.32.2", platform: platform)
            #expect(file.lastPathComponent == name)
        }
    }

    @Test func namesKernelsOfAnotherVersion() throws {
        let folder = try folder(
            "mlx-0.31.1-ios.metallib", "mlx-0.32.20-ios.metallib", "mlx-0.32.2-macos.metallib",
            "README.txt")
        defer { try? FileManager.default.removeItem(at: folder) }
        let message = try #require(problem(folder, .iOS))
        #expect(message.contains("expected the GPU kernels of MLX 0.32.2"))
        #expect(
            message.hasSuffix("found mlx-0.31.1-ios.metallib, mlx-0.32.20-ios.metallib"))
    }

    @Test func namesMissingKernelsWithAdvice() throws {
        let folder = try folder()
        try FileManager.default.removeItem(at: folder)
        #expect(try #require(problem(folder, .macOS)).hasSuffix("found none"))
        let error = OpenELMError.invalidKernels(path: "a", message: "b")
        #expect(error.errorDescription == "b")
        #expect(error.recoverySuggestion?.contains("make xcframework") == true)
    }

    /// The bundle contains the kernels' folder by name, and the privacy manifest at its top level.
    @Test func findsResourcesInTheBundle() throws {
        let readme = Kernels.folder.appending(path: "README.txt")
        #expect(try String(contentsOf: readme, encoding: .utf8).contains(".metallib"))
        let manifest = Kernels.folder.deletingLastPathComponent()
            .appending(path: "PrivacyInfo.xcprivacy")
        #expect(FileManager.default.fileExists(atPath: manifest.path))
    }

    /// On Linux the library has its own kernels, and checks the file names of others.
    @Test func libraryRejectsKernelsOfAnotherVersion() throws {
        #expect(Kernels.platform == nil)
        try Kernels.use()
        let folder = try folder("mlx-0.1.0-macos.metallib")
        defer { try? FileManager.default.removeItem(at: folder) }
        do {
            try Kernels.use(folder.appending(path: "mlx-0.1.0-macos.metallib"))
            Issue.record("kernels of another MLX version were accepted")
        } catch OpenELMError.invalidKernels(_, let message) {
            #expect(message.contains("found mlx-0.1.0-macos.metallib"))
        }
    }
}
