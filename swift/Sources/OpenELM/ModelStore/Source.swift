import Foundation

extension ModelStore {
    /// A place to download a model or an adapter from.
    public enum Source: Hashable, Codable, Sendable {
        /// A repository of the Hub, `owner/name`, at a branch, tag or commit. Downloads the
        /// configuration, the weights and the tokenizer of a model, or an adapter. Apple's OpenELM
        /// repositories have no tokenizer: `tokenizer` names it.
        case repository(String, revision: String = "main", tokenizer: Tokenizer = .included)
        /// Files of any server, as a model with a name of the app's choice. Another list with the
        /// same name replaces the model when its download is complete.
        case files(String, [RemoteFile])
    }

    /// The tokenizer of a repository's model.
    public enum Tokenizer: Hashable, Codable, Sendable {
        /// In the repository itself.
        case included
        /// In another repository of the Hub, `owner/name`.
        case repository(String, revision: String = "main")
        /// Files of any server: `tokenizer.json` or `tokenizer.model`.
        case files([RemoteFile])
        /// Not downloaded; ``LoadOptions/tokenizer`` names it when the model is loaded.
        case separate
    }

    /// A file of a server.
    public struct RemoteFile: Hashable, Codable, Sendable {
        /// The address: `https`, or `http` on this device.
        public var url: URL
        /// The name in the model's folder.
        public var name: String
        /// The SHA-256 of the contents, as 64 hexadecimal digits.
        public var sha256: String
        /// The size in bytes.
        public var size: Int

        /// Creates a file; the default name is the last part of `url`.
        public init(url: URL, name: String? = nil, sha256: String, size: Int) {
            self.url = url
            self.name = name ?? url.lastPathComponent
            self.sha256 = sha256
            self.size = size
        }
    }

    /// Bytes of a download.
    public struct Progress: Hashable, Sendable {
        /// The number of bytes on this device.
        public let completedBytes: Int
        /// The number of bytes of all files; 0 until the files are known.
        public let totalBytes: Int

        /// The fraction of the bytes on this device, from 0 to 1.
        public var fractionCompleted: Double {
            totalBytes == 0 ? 0 : Double(completedBytes) / Double(totalBytes)
        }
    }

    /// The state of a source on this device.
    public enum Availability: Hashable, Sendable {
        /// The model is complete, in this folder.
        case available(URL)
        /// This store downloads the model.
        case downloading(Progress)
        /// A download has stopped; the next one continues it.
        case incomplete(Progress)
        /// Nothing was downloaded.
        case notDownloaded
    }
}

extension ModelStore.Source {
    /// The name in errors.
    var title: String {
        switch self {
        case .repository(let name, let revision, _): hubTitle(name, revision)
        case .files(let name, _): name
        }
    }

    /// The name of the model's folder. Different repositories, revisions and names have different
    /// folders.
    func folderName() throws -> String {
        switch self {
        case .repository(let name, let revision, let tokenizer):
            try checkRepository(name, revision)
            switch tokenizer {
            case .included, .separate: break
            case .repository(let name, let revision): try checkRepository(name, revision)
            case .files(let files): try checkFiles(files)
            }
            let place = "models--" + name.replacing("/", with: "--")
            return revision == "main"
                ? place : "\(place)@\(revision.replacing("/", with: "%2F"))"
        case .files(let name, let files):
            guard isRepositoryWord(name) else {
                throw invalid(
                    "expected a name of letters, digits and `-_.`, found \(name.debugDescription)")
            }
            guard !files.isEmpty else { throw invalid("\(name): expected files, found none") }
            try checkFiles(files)
            return "files--\(name)"
        }
    }

    private func checkRepository(_ name: String, _ revision: String) throws {
        let words = name.split(separator: "/", omittingEmptySubsequences: false)
        guard words.count == 2, words.allSatisfy({ isRepositoryWord(String($0)) }) else {
            throw invalid("expected owner/name, found \(name.debugDescription)")
        }
        let allowed = revision.utf8.allSatisfy { isLetterOrDigit($0) || "-_./+".utf8.contains($0) }
        guard allowed, revision.utf8.count <= 128, FileName.isSafe(revision) else {
            throw invalid("expected a branch, tag or commit, found \(revision.debugDescription)")
        }
    }

    private func checkFiles(_ files: [ModelStore.RemoteFile]) throws {
        for file in files {
            try WebAddress.check(file.url, "source")
            let digits = file.sha256.utf8
            guard digits.count == 64, digits.allSatisfy({ isHexadecimal($0) }) else {
                throw invalid("\(file.name): expected a SHA-256 of 64 hexadecimal digits")
            }
            guard (0...DownloadPlan.maximumSize).contains(file.size) else {
                throw invalid("\(file.name): expected a size in bytes, found \(file.size)")
            }
        }
        guard files.count <= DownloadPlan.maximumCount else {
            throw invalid("expected at most \(DownloadPlan.maximumCount) files")
        }
        if let name = FileName.firstUnsafe(files.map(\.name)) {
            throw invalid("the unsafe file name \(name.debugDescription)")
        }
    }

    private func invalid(_ problem: String) -> OpenELMError {
        .invalidOption(name: "source", message: "source: \(problem)")
    }
}

/// The name of a repository in errors.
func hubTitle(_ name: String, _ revision: String) -> String {
    revision == "main" ? name : "\(name)@\(revision)"
}

/// The Hub's rules for an owner or a name (`validate_repo_id` of `huggingface_hub`).
private func isRepositoryWord(_ word: String) -> Bool {
    let bytes = Array(word.utf8)
    func isEdge(_ byte: UInt8?) -> Bool {
        byte.map { isLetterOrDigit($0) || $0 == UInt8(ascii: "_") } ?? false
    }
    return bytes.count <= 96 && isEdge(bytes.first) && isEdge(bytes.last)
        && bytes.allSatisfy { isLetterOrDigit($0) || "-_.".utf8.contains($0) }
        && !word.contains("--") && !word.contains("..")
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
    default: false
    }
}

private func isHexadecimal(_ byte: UInt8) -> Bool {
    "0123456789abcdefABCDEF".utf8.contains(byte)
}
