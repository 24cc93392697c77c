// swift-tools-version: 6.0
import PackageDescription

// The package's sources beside a stub of FoundationModels 27. swift/test-foundation-models.sh runs
// it in a folder with links to the sources.
let library = Context.environment["OPENELM_LIBRARY_DIR"] ?? ""

let package = Package(
    name: "FoundationModelsTests",
    targets: [
        .systemLibrary(name: "COpenELMFFI", path: "COpenELMFFI"),
        .target(
            name: "OpenELMBindings", dependencies: ["COpenELMFFI"], path: "OpenELMBindings",
            swiftSettings: [.swiftLanguageMode(.v5)],
            linkerSettings: [
                .linkedLibrary("openelm_ffi"),
                .unsafeFlags(["-L\(library)", "-Xlinker", "-rpath", "-Xlinker", library]),
            ]),
        // As Apple's module: version 2, and a stable interface, so that enumerations may grow.
        .target(
            name: "FoundationModels", path: "Stub",
            swiftSettings: [
                .unsafeFlags([
                    "-user-module-version", "2.0.1", "-enable-library-evolution",
                    "-suppress-warnings",
                ])
            ]),
        .target(
            name: "OpenELM", dependencies: ["FoundationModels", "OpenELMBindings"],
            path: "OpenELM", exclude: ["OpenELM.docc"],
            resources: [.copy("Resources/PrivacyInfo.xcprivacy"), .copy("Resources/Kernels")],
            swiftSettings: [
                .define("OPENELM_SYSTEM_LIBRARY"), .unsafeFlags(["-warnings-as-errors"]),
            ]),
        .testTarget(
            name: "FoundationModelsTests", dependencies: ["FoundationModels", "OpenELM"],
            path: "Tests", swiftSettings: [.unsafeFlags(["-warnings-as-errors"])]),
    ]
)
