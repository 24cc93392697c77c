import Foundation
import OpenELM
import Testing

let tales = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../../examples/tales").standardizedFileURL

@Suite(.serialized) struct GenerationTests {
    @Test func textIsTheOraclesAndProgressGrows() async throws {
        struct Reference: Decodable {
            struct Continuation: Decodable {
                let prompt: String
                let greedy_text: String
            }
            let continuations: [Continuation]
        }
        let data = try Data(contentsOf: tales.appending(path: "reference.json"))
        let reference = try JSONDecoder().decode(Reference.self, from: data)
        let told = Told()
        let model = try await LanguageModel(folder: tales) { told.append($0) }
        #expect(told.all.last == 1)
        #expect(told.all == told.all.sorted())
        for one in reference.continuations.prefix(3) {
            let options = GenerationOptions(maximumResponseTokens: 64)
            let text = try await model.complete(one.prompt, options: options)
            // mlx-lm's text is of the continuation alone, without the space that begins it.
            #expect(text.trimmingCharacters(in: .whitespaces) == one.greedy_text)
        }
        #expect(try model.parameterCount == 2_497_344)
        #expect(try model.decode(model.encode("Once upon a time")) == "Once upon a time")
    }

    @Test func piecesComeInOrderAndASeedRepeats() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(temperature: 1, maximumResponseTokens: 40, seed: 7)
        let whole = try await model.complete("The king", options: options)
        var pieces = ""
        for try await piece in model.streamCompletion(of: "The king", options: options) {
            pieces += piece
        }
        #expect(pieces == whole && !whole.isEmpty)
        let other = GenerationOptions(temperature: 1, maximumResponseTokens: 40, seed: 8)
        #expect(try await model.complete("The king", options: other) != whole)
    }

    @Test func sessionsKeepWhatTheyRead() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        let options = GenerationOptions(maximumResponseTokens: 12)
        let first = try await session.respond(to: "Once upon a time", options: options)
        var cached = 0
        for try await event in session.streamResponse(to: " and", options: options).withEvents() {
            if case .finished(_, let statistics) = event { cached = statistics.cachedTokens }
        }
        #expect(cached > 6)
        let texts = try await session.transcript.map(\.text)
        #expect(texts.prefix(3) == ["Once upon a time", first, " and"])
    }

    @Test func twoSessionsAtOnceAndAnAbandonedOne() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 30)
        let alone = try await model.complete("The queen", options: options)
        // Kept, begun and never read on.
        var abandoned = model.streamCompletion(of: "A fox", options: options).makeAsyncIterator()
        _ = try await abandoned.next()
        async let one = model.complete("The queen", options: options)
        async let two = model.complete("The queen", options: options)
        let both = try await [one, two]
        #expect(both == [alone, alone])
        #expect(try await abandoned.next() != nil)
    }

    @Test func aSessionThatAnswersRefusesAnother() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        var first = session.streamResponse(to: "A fox").makeAsyncIterator()
        _ = try await first.next()
        await #expect(throws: OpenELMError.concurrentRequests) {
            try await session.respond(to: "A bear")
        }
    }

    @Test func breakAndCancellationEndAtOnce() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(
            maximumResponseTokens: 400, ignoresEndOfSequence: true)
        let session = try LanguageModelSession(model: model, template: .plain)
        for try await _ in session.streamResponse(to: "A fox", options: options) { break }
        let said = try await session.transcript
        #expect(said.count == 2 && said[1].text.count < 60, "the core went on")

        // Inside decode, then inside prefill.
        let words = String(repeating: " and then", count: 150)
        for (prompt, chunk) in [("A fox", nil), (words, 1)] as [(String, Int?)] {
            var options = options
            options.prefillChunk = chunk
            let stream = model.streamCompletion(of: prompt, options: options).withEvents()
            let (began, begin) = AsyncStream.makeStream(of: Void.self)
            let task = Task {
                for try await _ in stream { begin.yield() }
            }
            for await _ in began { break }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func aThousandCancelledGenerationsLeakNoThread() async throws {
        let model = try await LanguageModel(folder: tales)
        func threads() -> Int? {
            try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count
        }
        func cancelled(_ times: Int) async throws {
            for _ in 0..<times {
                for try await _ in model.streamCompletion(of: "A fox").withEvents() { break }
            }
        }
        try await cancelled(20)
        let before = threads()
        try await cancelled(1000)
        if let before, let after = threads() { #expect(after <= before + 4) }
        #expect(try await model.complete("A fox").isEmpty == false)
    }

    @Test func fiftyReloadsKeepMemoryFlat() async throws {
        var active: [Int] = []
        for _ in 0..<50 {
            let model = try await LanguageModel(folder: tales)
            _ = try await model.complete("A fox", options: .init(maximumResponseTokens: 2))
            try await model.unload()
            active.append(try Memory.statistics.active)
        }
        let (first, last) = (active[4], active[49])
        #expect(last <= first + 1 << 20, "\(active)")
    }

    @Test func pausedWorkRestsAndGoesOn() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 20)
        let whole = try await model.complete("A fox", options: options)
        let started = Task { try await model.complete("A fox", options: options) }
        #expect(try Memory.pause())
        let held = model.streamCompletion(of: "A bear", options: options)
        let waiting = Task {
            for try await _ in held { return true }; return false
        }
        try await Task.sleep(for: .milliseconds(200))
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        try Memory.resume()
        #expect(try await started.value == whole)
    }
}

/// Numbers that were told from elsewhere.
final class Told: @unchecked Sendable {
    private let lock = NSLock()
    private var numbers: [Double] = []
    var all: [Double] { lock.withLock { numbers } }
    func append(_ number: Double) { lock.withLock { numbers.append(number) } }
}
