import Foundation
import OpenELM
import Testing

/// Models and adapters with one defect each.
@Suite(.serialized) struct BadModelTests {
    @Test func namesAMissingFile() async throws {
        for (file, kind) in [
            ("config.json", "missingFile"), ("model.safetensors", "missingFile"),
            ("tokenizer.json", "missingFile"),
        ] {
            let copy = try ModelCopy()
            try FileManager.default.removeItem(at: copy.url.appending(path: file))
            let error = await copy.error
            #expect(error.map(name) == kind, "without \(file): \(error as Any)")
        }
    }

    @Test func namesMalformedFiles() async throws {
        for (file, text, kind) in [
            ("config.json", "{\"model_dim\": ", "invalidConfig"),
            ("config.json", "{}", "invalidConfig"),
            ("tokenizer.json", "{\"model\": 3}", "invalidTokenizer"),
            ("model.safetensors", "no tensors", "invalidCheckpoint"),
        ] {
            let copy = try ModelCopy()
            try Data(text.utf8).write(to: copy.url.appending(path: file))
            let error = await copy.error
            #expect(error.map(name) == kind, "\(text) as \(file): \(error as Any)")
            #expect(error?.errorDescription?.contains(file) == true, "\(error as Any)")
        }
        // An incomplete download.
        let copy = try ModelCopy()
        let weights = copy.url.appending(path: "model.safetensors")
        try Data(contentsOf: weights).dropLast(1000).write(to: weights)
        #expect(await copy.error.map(name) == "invalidCheckpoint")
    }

    @Test func warnsOfATokenThatTheModelLacks() async throws {
        let bundled = try await LanguageModel(folder: tales)
        #expect(try bundled.warnings == [])
        let copy = try ModelCopy()
        let file = copy.url.appending(path: "tokenizer.json")
        let json = try JSONSerialization.jsonObject(with: Data(contentsOf: file))
        var tokenizer = try #require(json as? [String: Any])
        var added = try #require(tokenizer["added_tokens"] as? [[String: Any]])
        var token = try #require(added.first)
        token["id"] = 4096
        token["content"] = "<pad>"
        added.append(token)
        tokenizer["added_tokens"] = added
        try JSONSerialization.data(withJSONObject: tokenizer).write(to: file)
        let model = try await LanguageModel(folder: copy.url)
        #expect(try model.warnings.count == 1)
        #expect(try model.encode("the") == bundled.encode("the"))
        #expect(throws: OpenELMError.self) { try model.encode("<pad>") }
    }

    @Test func namesAWrongTensor() async throws {
        let tensor = "transformer.layers.2.attn.out_proj.weight"
        let extra = "transformer.layers.9.extra.weight"
        let changes: [(String, String, (inout [String: Any]) -> Void)] = [
            ("missing", tensor, { $0[tensor + "s"] = $0.removeValue(forKey: tensor) }),
            (
                "unexpected", extra,
                { header in
                    let ends = header.values.compactMap {
                        (($0 as? [String: Any])?["data_offsets"] as? [Int])?[1]
                    }
                    let end = ends.max() ?? 0
                    header[extra] =
                        ["dtype": "U8", "shape": [2], "data_offsets": [end, end + 2]]
                        as [String: Any]
                }
            ),
            ("with another shape", tensor, { $0.change(tensor, "shape", to: [128, 192]) }),
            ("with another dtype", tensor, { $0.change(tensor, "dtype", to: "I16") }),
        ]
        for (what, named, change) in changes {
            let copy = try ModelCopy()
            try changeHeader(
                of: copy.url.appending(path: "model.safetensors"),
                appending: Data(count: what == "unexpected" ? 2 : 0), change)
            let error = await copy.error
            #expect(error.map(name) == "invalidCheckpoint", "\(what): \(error as Any)")
            #expect(error?.errorDescription?.contains(named) == true, "\(what): \(error as Any)")
        }
    }

    @Test func rejectsInvalidLoadOptions() async throws {
        let error = await (try ModelCopy()).error(.init(tokenizer: URL(filePath: "/nowhere")))
        #expect(error?.errorDescription?.contains("/nowhere") == true, "\(error as Any)")
    }

    @Test func rejectsInvalidAdaptersWithoutChange() async throws {
        let folder = try Folder()
        let model = try await LanguageModel(folder: tales)
        let short = GenerationOptions(maximumResponseTokens: 8)
        let before = try await model.generate("The fox", options: short)
        let good = folder.url.appending(path: "good")
        var options = FinetuneTests.options
        options.iters = 2
        for try await _ in model.finetune(on: try folder.rows(), savingTo: good, options: options) {
        }

        func fails(_ change: (URL) throws -> Void) async throws -> OpenELMError? {
            let bad = folder.url.appending(path: UUID().uuidString)
            try FileManager.default.copyItem(at: good, to: bad)
            try change(bad)
            do {
                try await model.addAdapter("bad", folder: bad)
                return nil
            } catch { return error as? OpenELMError }
        }
        let file = "adapters.safetensors"
        let missing = try await fails {
            try FileManager.default.removeItem(at: $0.appending(path: file))
        }
        #expect(missing.map(name) == "missingFile", "\(missing as Any)")
        let config = try await fails {
            try Data("{}".utf8).write(to: $0.appending(path: "adapter_config.json"))
        }
        #expect(config.map(name) == "invalidAdapter", "\(config as Any)")
        let misfit = try await fails { bad in
            try changeHeader(of: bad.appending(path: file)) { header in
                let tensor = header.keys.filter { $0 != "__metadata__" }.sorted()[0]
                header["another." + tensor] = header.removeValue(forKey: tensor)
            }
        }
        #expect(misfit.map(name) == "invalidAdapter", "\(misfit as Any)")
        #expect(try await model.adapters.isEmpty)
        #expect(try await model.generate("The fox", options: short) == before)

        try await model.addAdapter("good", folder: good)
        for (name, work) in [
            ("a name in use", { try await model.addAdapter("good", folder: good) }),
            ("an unknown adapter", { try await model.setAdapters([Adapter("other")]) }),
            ("no strength", { try await model.setAdapters([Adapter("good", strength: .nan)]) }),
            ("removal of an unknown adapter", { try await model.removeAdapter("other") }),
        ] as [(String, () async throws -> Void)] {
            do {
                try await work()
                Issue.record("\(name) was accepted")
            } catch OpenELMError.invalidOption {
            } catch { Issue.record("\(name): \(error)") }
        }
        #expect(try await model.adapters == ["good"])
    }
}

/// The name of the error's case.
private func name(_ error: OpenELMError) -> String {
    Mirror(reflecting: error).children.first?.label ?? "\(error)"
}

/// A copy of the bundled model, to be damaged.
struct ModelCopy {
    private let folder: Folder
    let url: URL

    init() throws {
        folder = try Folder()
        url = folder.url.appending(path: "model")
        try FileManager.default.copyItem(at: tales, to: url)
    }

    /// The error of loading the copy.
    var error: OpenELMError? { get async { await error(.init()) } }

    func error(_ options: LoadOptions) async -> OpenELMError? {
        do {
            _ = try await LanguageModel(folder: url, options: options)
            return nil
        } catch { return error as? OpenELMError }
    }
}

/// Rewrites a safetensors file with another header: its length in 8 bytes, then JSON.
private func changeHeader(
    of file: URL, appending tail: Data = Data(), _ change: (inout [String: Any]) -> Void
) throws {
    let data = try Data(contentsOf: file)
    let length = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let json = try JSONSerialization.jsonObject(with: data.dropFirst(8).prefix(length))
    var header = try #require(json as? [String: Any])
    change(&header)
    var text = try JSONSerialization.data(withJSONObject: header)
    text.append(contentsOf: Array(repeating: 32, count: (8 - text.count % 8) % 8))
    let size = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
    try (size + text + data.dropFirst(8 + length) + tail).write(to: file)
}

extension [String: Any] {
    fileprivate mutating func change(_ tensor: String, _ field: String, to value: Any) {
        var entry = self[tensor] as? [String: Any] ?? [:]
        entry[field] = value
        self[tensor] = entry
    }
}
