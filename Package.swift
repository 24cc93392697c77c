// swift-tools-version: 6.0
import PackageDescription

// On Apple systems the core is a prebuilt XCFramework. Elsewhere, and where OPENELM_LIBRARY_DIR
// names a folder, it is the library that `cargo build -p openelm-ffi` made.
#if os(Linux)
    let libraryFolder: String? =
        Context.environment["OPENELM_LIBRARY_DIR"] ?? "\(Context.packageDirectory)/target/debug"
#else
    let libraryFolder: String? = Context.environment["OPENELM_LIBRARY_DIR"]
#endif

// `release/release.py pin` writes a release's. Without one: what `make xcframework` made here.
let releaseAddress = ""
let releaseChecksum = ""

let core: Target
var linkage: [LinkerSetting] = []
var settings: [SwiftSetting] = []
if let libraryFolder {
    core = .systemLibrary(name: "COpenELMFFI", path: "swift/Sources/COpenELMFFI")
    linkage = [
        .linkedLibrary("openelm_ffi"),
        .unsafeFlags(["-L\(libraryFolder)", "-Xlinker", "-rpath", "-Xlinker", libraryFolder]),
    ]
    // Such a library knows where its GPU kernels lie; the XCFramework's are this package's resources.
    settings = [.define("OPENELM_SYSTEM_LIBRARY")]
} else {
    // No look at the disk decides which: a consumer's working folder is not this one.
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
            name: "openelm-chat", dependencies: ["OpenELM"], path: "swift/Examples/Chat/Chat"),
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
