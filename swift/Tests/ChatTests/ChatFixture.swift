import Foundation
import OpenELM
import Testing

@testable import openelm_chat

let tales = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../../examples/tales").standardizedFileURL

/// A folder that is deleted with this object.
final class TemporaryFolder: Sendable {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appending(path: "chat-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// Writes a file and returns its URL.
    @discardableResult func write(_ text: String, to path: String) throws -> URL {
        let file = url.appending(path: path)
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
        return file
    }

    func names(in path: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: url.appending(path: path).path).sorted()
    }
}

/// Texts that were announced or copied.
@MainActor final class Texts: Sendable {
    private(set) var all: [String] = []
    func append(_ text: String) { all.append(text) }
}

/// Conditions of a device, for any number of trainings.
final class Conditions: @unchecked Sendable {
    private let lock = NSLock()
    private var current = TrainingConditions()
    private var streams: [AsyncStream<TrainingConditions>.Continuation] = []

    func updates() -> AsyncStream<TrainingConditions> {
        let (stream, continuation) = AsyncStream.makeStream(of: TrainingConditions.self)
        lock.withLock {
            streams.append(continuation)
            continuation.yield(current)
        }
        return stream
    }

    func yield(_ conditions: TrainingConditions) {
        lock.withLock {
            current = conditions
            for stream in streams { stream.yield(conditions) }
        }
    }
}

/// The app in a folder of its own.
@MainActor struct ChatFixture {
    let folder: TemporaryFolder
    let announced = Texts()
    let copied = Texts()
    /// The conditions of the device, for trainings.
    let conditions = Conditions()
    let environment: ChatEnvironment
    let chat: ChatModel

    init(
        in folder: TemporaryFolder? = nil, sample: URL? = tales,
        library: (any ModelLibrary)? = nil,
        available: @escaping @Sendable () -> Int? = { nil }
    ) throws {
        let folder = try folder ?? TemporaryFolder()
        self.folder = folder
        environment = ChatEnvironment(
            directory: folder.url.appending(path: "Support"),
            documents: [folder.url.appending(path: "Documents")], sample: sample,
            library: library, offered: [fakeModel], announce: announced.append,
            copy: copied.append, available: available, conditions: conditions.updates)
        chat = ChatModel(environment: environment)
    }

    /// The app with the sample loaded, greedy, with short answers.
    static func started(
        in folder: TemporaryFolder? = nil, tokens: Int = 12
    ) async throws -> ChatFixture {
        let fixture = try ChatFixture(in: folder)
        fixture.chat.settings.settings.temperature = 0
        fixture.chat.settings.settings.maximumResponseTokens = tokens
        await fixture.chat.start()
        await fixture.chat.loader.finish()
        try #require(fixture.chat.loader.state == .ready)
        return fixture
    }

    /// Sends `prompt` in the open conversation and returns the last message.
    @discardableResult func ask(_ prompt: String) async throws -> String {
        chat.session.draft = prompt
        chat.session.send()
        await chat.session.finish()
        return try #require(chat.session.messages.last).text
    }

    /// Sends `prompt` and returns when the answer has a character.
    func begin(_ prompt: String) async throws {
        let session = chat.session
        session.draft = prompt
        session.send()
        try await eventually { session.messages.last?.text.isEmpty == false }
    }
}

/// Waits until `condition` is true.
@MainActor func eventually(
    _ condition: @MainActor () async -> Bool, location: SourceLocation = #_sourceLocation
) async throws {
    let end = ContinuousClock.now + .seconds(60)
    while await !condition() {
        try #require(ContinuousClock.now < end, sourceLocation: location)
        try await Task.sleep(for: .milliseconds(2))
    }
}

let fakeModel = DownloadableModel(repository: "owner/Fake-Instruct", bytes: 1_000_000)

/// A library whose downloads wait for the test.
actor FakeLibrary: ModelLibrary {
    private var state = ModelAvailability.notDownloaded
    private var failure: String?
    private(set) var downloads = 0
    private(set) var deletions = 0
    private let gate: AsyncStream<Void>
    private let open: AsyncStream<Void>.Continuation

    init(_ state: ModelAvailability = .notDownloaded) {
        self.state = state
        (gate, open) = AsyncStream.makeStream(of: Void.self)
    }

    func fail(with message: String?) { failure = message }

    /// Lets one download end.
    nonisolated func release() { open.yield() }

    func availability(of model: DownloadableModel) -> ModelAvailability { state }

    func download(
        _ model: DownloadableModel, progress: @escaping @Sendable (Double) -> Void
    ) async throws -> URL {
        downloads += 1
        for share in [0.5, 0.25] { progress(share) }
        for await _ in gate { break }
        if Task.isCancelled || failure != nil { state = .incomplete(0.5) }
        try Task.checkCancellation()
        if let failure { throw ChatError(failure) }
        state = .available(tales)
        progress(1)
        return tales
    }

    func delete(_ model: DownloadableModel) throws {
        deletions += 1
        if let failure { throw ChatError(failure) }
        state = .notDownloaded
    }
}
