import Foundation
import Testing

@testable import OpenELM

@Suite struct PartialFileTests {
    /// The bodies of download tasks, also of tasks of an earlier launch.
    @Test func takesWholeBodiesAndMissingBytes() throws {
        let folder = try Folder()
        let url = folder.url.appending(path: "w.part")
        func body(_ bytes: [UInt8]) throws -> URL {
            let file = folder.url.appending(path: "body")
            try Data(bytes).write(to: file)
            return file
        }
        let lengths = Recorded<Int>()
        let part = try PartialFile(url: url, size: 4, title: "w") { lengths.append($0) }
        try part.take(body([1, 2, 3, 4]), from: 0)
        #expect(part.isComplete)
        #expect(try Data(contentsOf: url) == Data([1, 2, 3, 4]))

        try Data([1, 2]).write(to: url)
        try Data("\"1\"".utf8).write(to: url.appendingPathExtension("etag"))
        try part.refresh()
        #expect(part.headers == ["Range": "bytes=2-", "If-Range": "\"1\""])
        try part.take(body([7, 8]), from: 2)
        #expect(try Data(contentsOf: url) == Data([1, 2, 7, 8]))
        // A server that ignores the range.
        try Data([1, 2]).write(to: url)
        try part.take(body([5, 6, 7, 8]), from: 2)
        #expect(try Data(contentsOf: url) == Data([5, 6, 7, 8]))
        #expect(lengths.values.last == 4)

        for (start, bytes) in [(0, [1, 2, 3]), (2, [1]), (3, [1]), (2, [1, 2, 3])] {
            try Data([1, 2]).write(to: url)
            #expect(throws: DownloadFailure.self) {
                try part.take(body(bytes.map(UInt8.init)), from: start)
            }
            #expect(!FileManager.default.fileExists(atPath: url.path))
            #expect(part.length == 0)
        }
    }

    /// Bytes that the server's version is not known of, or too many, are not continued.
    @Test func removesBytesThatCannotBeContinued() throws {
        let folder = try Folder()
        let url = folder.url.appending(path: "w.part")
        let etag = url.appendingPathExtension("etag")
        for (count, version) in [(2, nil), (2, ""), (2, "a\nb"), (5, "\"1\"")] {
            try Data(count: count).write(to: url)
            if let version { try Data(version.utf8).write(to: etag) }
            let part = try PartialFile(url: url, size: 4, title: "w")
            #expect(part.length == 0 && part.headers.isEmpty)
            #expect(!FileManager.default.fileExists(atPath: url.path))
            #expect(!FileManager.default.fileExists(atPath: etag.path))
        }
        // All bytes need no version: their SHA-256 is compared.
        try Data(count: 4).write(to: url)
        #expect(try PartialFile(url: url, size: 4, title: "w").isComplete)
    }

    @Test func errorsOfDownloadsHaveAdvice() {
        let cases: [OpenELMError] = [
            .network(source: "a", message: "a: b"), .access(source: "a", message: "a: b"),
            .notFound(source: "a", message: "a: b"), .invalidDownload(source: "a", message: "a: b"),
        ]
        for error in cases {
            #expect(error.errorDescription == "a: b")
            #expect(error.recoverySuggestion?.isEmpty == false)
        }
        let space = OpenELMError.insufficientSpace(path: "/m", needed: 3, available: 2)
        #expect(space.errorDescription == "/m: expected 3 free bytes for the download, found 2")
        #expect(space.recoverySuggestion?.isEmpty == false)
    }
}
