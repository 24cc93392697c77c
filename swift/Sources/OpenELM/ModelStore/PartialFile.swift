import Foundation

/// The beginning of a file, and the version of the file on the server (its ETag).
final class PartialFile: AnswerSink, @unchecked Sendable {
    let url: URL
    /// The expected size of the file.
    let size: Int
    private let title: String
    private let report: @Sendable (Int) -> Void
    // Used by one exchange at a time, and between exchanges by the download.
    private(set) var length = 0
    private var handle: FileHandle?
    private var ignoresBody = false

    /// Opens the part at `url`; `report` gets its length when that changes.
    init(
        url: URL, size: Int, title: String, report: @escaping @Sendable (Int) -> Void = { _ in }
    ) throws {
        self.url = url
        self.size = size
        self.title = title
        self.report = report
        try refresh()
    }

    deinit { try? handle?.close() }

    /// True if all bytes are there. They are not verified.
    var isComplete: Bool { length == size }

    /// Headers of a request for the missing bytes: `Range` and `If-Range`.
    var headers: [String: String] {
        guard length > 0, let etag = text(of: etagFile) else { return [:] }
        return ["Range": "bytes=\(length)-", "If-Range": etag]
    }

    /// Data of the system that continue a background download.
    var resumeData: Data? {
        get { try? Data(contentsOf: resumeFile) }
        set {
            if let newValue {
                try? newValue.write(to: resumeFile, options: .atomic)
            } else {
                try? FileManager.default.removeItem(at: resumeFile)
            }
        }
    }

    /// Reads the length again. Without a version, bytes cannot be continued: they are removed.
    func refresh() throws {
        length = byteCount(of: url) ?? 0
        if length > size || length > 0 && length < size && text(of: etagFile) == nil {
            try restart()
        }
        report(length)
    }

    /// Removes all bytes.
    func restart() throws {
        try close()
        for place in [url, etagFile, resumeFile]
        where (try? FileManager.default.attributesOfItem(atPath: place.path)) != nil {
            try io(place) { try FileManager.default.removeItem(at: place) }
        }
        length = 0
        report(0)
    }

    /// Removes the version and the system's data, when the file has its name.
    func removeDetails() {
        for place in [etagFile, resumeFile] { try? FileManager.default.removeItem(at: place) }
    }

    /// Writes all bytes to the disk.
    func close() throws {
        guard let handle else { return }
        self.handle = nil
        try io(url) {
            try handle.synchronize()
            try handle.close()
        }
    }

    func begin(_ answer: Answer) throws {
        try close()
        ignoresBody = false
        switch answer.status {
        case 200:
            try restart()
            try check(answer, size)
        case 206:
            let expected = "bytes \(length)-\(max(size, 1) - 1)/\(size)"
            let etag = answer.header("ETag")
            guard answer.header("Content-Range") == expected,
                etag == nil || etag == text(of: etagFile)
            else {
                try restart()
                throw DownloadFailure.network(
                    title, "expected the requested part of the file, found another one")
            }
            try check(answer, size - length)
        default:
            // The status is an error.
            ignoresBody = true
            return
        }
        try io(url) {
            if length == 0 {
                try Data().write(to: url)
                // A weak ETag is no version of bytes.
                if let etag = answer.header("ETag"), !etag.hasPrefix("W/") {
                    try Data(etag.utf8).write(to: etagFile, options: .atomic)
                }
            }
            let handle = try FileHandle(forWritingTo: url)
            try handle.seekToEnd()
            self.handle = handle
        }
    }

    func receive(_ data: Data) throws {
        guard !ignoresBody, let handle else { return }
        guard data.count <= size - length else {
            try restart()
            throw DownloadFailure.content(title, "expected \(size) bytes, found more; removed")
        }
        try io(url) { try handle.write(contentsOf: data) }
        length += data.count
        report(length)
    }

    /// Reports bytes that are not yet in the file: `count` of a body from the byte `start`.
    func reportTransient(_ start: Int, _ count: Int) { report(min(start, size) + min(count, size)) }

    /// Takes a whole body: the bytes from `start`, or all bytes.
    func take(_ body: URL, from start: Int) throws {
        try close()
        let found = byteCount(of: body) ?? 0
        if found == size {
            try restart()
            try io(url) { try FileManager.default.moveItem(at: body, to: url) }
        } else if start > 0, found == size - start, byteCount(of: url) == start {
            try io(url) {
                let source = try FileHandle(forReadingFrom: body)
                let target = try FileHandle(forWritingTo: url)
                try target.seekToEnd()
                while let data = try source.read(upToCount: 1 << 20), !data.isEmpty {
                    try target.write(contentsOf: data)
                }
                try target.synchronize()
            }
        } else {
            try restart()
            throw DownloadFailure.content(title, "expected \(size) bytes, found \(found); removed")
        }
        try refresh()
    }

    private func check(_ answer: Answer, _ expected: Int) throws {
        guard answer.header("Content-Encoding") == nil,
            let found = answer.header("Content-Length").flatMap(Int.init), found != expected
        else { return }
        try restart()
        throw DownloadFailure.content(
            title, "expected \(expected) bytes, found \(found); removed")
    }

    private var etagFile: URL { url.appendingPathExtension("etag") }
    private var resumeFile: URL { url.appendingPathExtension("resume") }

    private func text(of file: URL) -> String? {
        guard let text = try? String(contentsOf: file, encoding: .utf8), !text.isEmpty,
            text.utf8.count < 1000, text.utf8.allSatisfy({ $0 > 31 && $0 < 127 })
        else { return nil }
        return text
    }
}
