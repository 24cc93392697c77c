// swift-tools-version: 6.0
import PackageDescription

// On Apple systems the core is a prebuilt XCFramework. Elsewhere, or if OPENELM_LIBRARY_DIR is set,
// it is the library built by `cargo build -p openelm-ffi`.
#if os(Linux)
    let libraryFolder: String? =
        Context.environment["OPENELM_LIBRARY_DIR"] ?? "\(Context.packageDirectory)/target/debug"
#else
    let libraryFolder: String? = Context.environment["OPENELM_LIBRARY_DIR"]
#endif

// Set by `release/release.py pin` for a release. If empty, the local result of `make xcframework`.
let releaseAddress = ""
let releaseChecksum = ""

let core: Target
var linkage: [LinkerSetting] = []
var settings: [SwiftSetting] = []
if let libraryFolder {
    core = .systemLibrary(name: "COpenELMFFI", path: "swift/Sources/COpenELMFFI")
    linkage = [.linkedLibrary("openelm_ffi")]
    // SwiftPM refuses unsafe flags in a package that is required by version. There LIBRARY_PATH and
    // LD_LIBRARY_PATH name the folder (docs/swift-on-linux.md).
    let parentFolder = Context.packageDirectory.split(separator: "/").dropLast().last
    if parentFolder != "checkouts" {
        linkage.append(
            .unsafeFlags(["-L\(libraryFolder)", "-Xlinker", "-rpath", "-Xlinker", libraryFolder]))
    }
    // This library has the path of its GPU kernels; the XCFramework's kernels are resources of this
    // package.
    settings = [.define("OPENELM_SYSTEM_LIBRARY")]
} else {
    // The choice does not depend on the disk, because a consumer's working folder is another one.
    core =
        releaseChecksum.isEmpty
        ? .binaryTarget(name: "COpenELMFFI", path: "out/xcframework/COpenELMFFI.xcframework")
        : .binaryTarget(name: "COpenELMFFI", url: releaseAddress, checksum: releaseChecksum)
    linkage = [
        .linkedLibrary("c++"),
        .linkedLibrary("iconv"),
        .linkedFramework("Accelerate"),
        .linkedFramework("CoreFoundation"),
        .linkedFramework("Foundation"),
        .linkedFramework("Metal"),
        .linkedFramework("QuartzCore"),
    ]
}

let package = Package(
    name: "OpenELM",
    platforms: [.macOS(.v14), .iOS(.v17)],
    products: [.library(name: "OpenELM", targets: ["OpenELM"])],
    targets: [
        core,
        .target(
            name: "OpenELMBindings", dependencies: ["COpenELMFFI"],
            path: "swift/Sources/OpenELMBindings",
            swiftSettings: [.swiftLanguageMode(.v5)], linkerSettings: linkage),
        .target(
            name: "OpenELM", dependencies: ["OpenELMBindings"], path: "swift/Sources/OpenELM",
            resources: [.copy("Resources/PrivacyInfo.xcprivacy"), .copy("Resources/Kernels")],
            swiftSettings: settings),
        .executableTarget(
            name: "openelm-swift", dependencies: ["OpenELM"], path: "swift/Examples/CommandLine"),
        .executableTarget(
            name: "openelm-finetune", dependencies: ["OpenELM"],
            path: "swift/Examples/FineTuning"),
        .executableTarget(
            name: "openelm-chat", dependencies: ["OpenELM"], path: "swift/Examples/Chat/Chat",
            exclude: ["Localizable.xcstrings"]),
        .executableTarget(
            name: "openelm-swift-bench", dependencies: ["OpenELM"], path: "swift/Benchmarks"),
        .testTarget(
            name: "OpenELMTests", dependencies: ["OpenELM", "OpenELMBindings"],
            path: "swift/Tests/OpenELMTests"),
        .testTarget(
            name: "ChatTests", dependencies: ["OpenELM", "openelm-chat"],
            path: "swift/Tests/ChatTests"),
    ]
)
