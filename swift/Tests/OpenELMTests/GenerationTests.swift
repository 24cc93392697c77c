import Foundation
import OpenELM
import Testing

let tales = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../../openelm-core/tests/fixtures/tales").standardizedFileURL

@Suite(.serialized) struct GenerationTests {
    @Test func matchesReferenceTextAndReportsProgress() async throws {
        struct Reference: Decodable {
            struct Continuation: Decodable {
                let prompt: String
                let greedy_text: String
            }
            let continuations: [Continuation]
        }
        let data = try Data(contentsOf: tales.appending(path: "reference.json"))
        let reference = try JSONDecoder().decode(Reference.self, from: data)
        let progress = ProgressValues()
        let model = try await LanguageModel(folder: tales) { progress.append($0) }
        #expect(progress.all.last == 1)
        #expect(progress.all == progress.all.sorted())
        for one in reference.continuations.prefix(3) {
            let options = GenerationOptions(maximumResponseTokens: 64)
            let text = try await model.generate(one.prompt, options: options)
            // mlx-lm's text is the decoded continuation, without its leading space.
            #expect(text.trimmingCharacters(in: .whitespaces) == one.greedy_text)
        }
        #expect(try model.parameterCount == 2_497_344)
        #expect(try model.decode(model.encode("Once upon a time")) == "Once upon a time")
    }

    @Test func piecesAreInOrderAndSeedsRepeat() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(samplingMode: .random(seed: 7), maximumResponseTokens: 40)
        let whole = try await model.generate("The king", options: options)
        var pieces = ""
        for try await piece in model.streamGenerate("The king", options: options) {
            pieces += piece
        }
        #expect(pieces == whole && !whole.isEmpty)
        let other = GenerationOptions(samplingMode: .random(seed: 8), maximumResponseTokens: 40)
        #expect(try await model.generate("The king", options: other) != whole)
    }

    /// Sampling from the whole distribution, and greedy.
    @Test func matchesTheCommandLine() async throws {
        let tool = try #require(ProcessInfo.processInfo.environment["OPENELM_TOOL"])
        let model = try await LanguageModel(folder: tales)
        for (temperature, seed) in [(0, 1), (1, 1), (1, 2), (0.7, 9)] as [(Double, UInt64)] {
            let process = Process()
            process.executableURL = URL(filePath: tool)
            process.arguments = [
                "generate", "--model", tales.path, "--prompt", "The king", "--json",
                "--temp", "\(temperature)", "--max-tokens", "40",
            ]
            if temperature > 0 {
                process.arguments? += ["--seed", "\(seed)"]
            }
            let pipe = Pipe()
            process.standardOutput = pipe
            process.standardError = FileHandle.nullDevice
            try process.run()
            let lines = pipe.fileHandleForReading.readDataToEndOfFile().split(separator: 10)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0)
            struct Line: Decodable {
                let id: UInt32?
                let text: String?
            }
            let events = try lines.map { try JSONDecoder().decode(Line.self, from: $0) }
            let options = GenerationOptions(
                samplingMode: .random(seed: seed), temperature: temperature,
                maximumResponseTokens: 40)
            var tokens: [UInt32] = []
            var text = ""
            let stream = model.streamGenerate("The king", options: options)
            for try await event in stream.withEvents() {
                if case .token(let token) = event {
                    tokens.append(token.id)
                    text += token.text
                }
            }
            #expect(tokens == events.compactMap(\.id) && tokens.count > 5)
            #expect(text == events.filter { $0.id != nil }.compactMap(\.text).joined())
        }
    }

    @Test func slowReaderHoldsBackTheGeneration() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        let options = GenerationOptions(
            maximumResponseTokens: 400, ignoreEos: true)
        var events = session.streamResponse(to: "A fox", options: options).makeAsyncIterator()
        _ = try await events.next()
        // Time for hundreds of tokens.
        try await Task.sleep(for: .seconds(1))
        var another = model.streamGenerate("A bear").makeAsyncIterator()
        #expect(try await another.next() != nil, "other generations wait")
        events = session.streamResponse(to: "", options: options).makeAsyncIterator()
        let transcript = try await session.transcript
        #expect(transcript.count == 2 && transcript[1].text.count < 120, "\(transcript)")
    }

    @Test func warmsUpWithoutAChangeOfTheText() async throws {
        let options = GenerationOptions(maximumResponseTokens: 12)
        let cold = try await LanguageModel(folder: tales)
        let expected = try await cold.generate("A fox", options: options)
        let model = try await LanguageModel(folder: tales)
        try await model.warmUp()
        #expect(try await model.generate("A fox", options: options) == expected)

        let session = try LanguageModelSession(model: model, template: .plain)
        session.prewarm()
        #expect(try await session.respond(to: "A fox", options: options).content == expected)
        #expect(try await session.transcript.count == 2)

        try await model.unload()
        await #expect(throws: OpenELMError.unloaded) { try await model.warmUp() }
        session.prewarm()
        await #expect(throws: OpenELMError.unloaded) { try await session.respond(to: "A fox") }
    }

    @Test func sessionReusesItsCache() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        let options = GenerationOptions(maximumResponseTokens: 12)
        let first = try await session.respond(to: "Once upon a time", options: options).content
        var cached = 0
        for try await event in session.streamResponse(to: " and", options: options).withEvents() {
            if case .finished(_, let statistics) = event { cached = statistics.cachedTokens }
        }
        #expect(cached > 6)
        let texts = try await session.transcript.map(\.text)
        #expect(texts.prefix(3) == ["Once upon a time", first, " and"])
    }

    @Test func concurrentSessionsAreIndependent() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 30)
        let prompts = ["The queen", "Once upon a time"]
        var alone: [String] = []
        for prompt in prompts { alone.append(try await model.generate(prompt, options: options)) }
        let sessions = try prompts.map { _ in
            try LanguageModelSession(model: model, template: .plain)
        }
        async let one = sessions[0].respond(to: prompts[0], options: options)
        async let two = sessions[1].respond(to: prompts[1], options: options)
        #expect(try await [one.content, two.content] == alone)
        for (session, (prompt, text)) in zip(sessions, zip(prompts, alone)) {
            let transcript = try await session.transcript
            #expect(
                transcript.map(\.text) == [prompt, text]
                    && transcript.map(\.role) == [.prompt, .response])
        }
    }

    @Test func transcriptContinuesInAnotherSession() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 12)
        let session = try LanguageModelSession(model: model, instructions: "Be brief.")
        let first = try await session.respond(to: "Who is there?", options: options)
        #expect(first.stats.generatedTokens > 0)
        #expect(
            first.stats.generatedTokens < 12 || first.finishReason == .length)
        // Stored as an app would store it.
        let kept = try JSONEncoder().encode(try await session.transcript)
        let transcript = try JSONDecoder().decode([LanguageModelSession.Message].self, from: kept)
        #expect(transcript.map(\.role) == [.instructions, .prompt, .response])
        let other = try LanguageModelSession(model: model, transcript: transcript)
        let answer = try await other.respond(to: "And now?", options: options).content
        #expect(try await session.respond(to: "And now?", options: options).content == answer)
        #expect(throws: OpenELMError.self) {
            try LanguageModelSession(model: model, transcript: Array(transcript.reversed()))
        }
    }

    @Test func unlimitedTextEndsWithTheContext() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        let prompt = String(repeating: " and then", count: 100)
        let options = GenerationOptions(maximumResponseTokens: nil, ignoreEos: true)
        let response = try await session.respond(to: prompt, options: options)
        #expect(response.finishReason == .context)
        let counts = response.stats
        #expect(try counts.promptTokens + counts.generatedTokens >= model.contextSize)
    }

    @Test func equivalentSamplingOptionsGiveTheSameText() async throws {
        let model = try await LanguageModel(folder: tales)
        func text(
            _ sampling: GenerationOptions.SamplingMode?, _ temperature: Double? = nil
        ) async throws -> String {
            let options = GenerationOptions(
                samplingMode: sampling, temperature: temperature, maximumResponseTokens: 40)
            return try await model.generate("The king", options: options)
        }
        let greedy = try await text(nil)
        #expect(try await text(.greedy) == greedy)
        #expect(try await text(.greedy, 2) == greedy)
        #expect(try await text(.random(seed: 3), 0) == greedy)
        #expect(try await text(.random(top: 1, seed: 3)) == greedy)
        #expect(try await text(.random(minP: 1, seed: 3)) == greedy)
        let drawn = try await text(.random(seed: 3))
        #expect(drawn != greedy)
        #expect(try await text(.random(seed: 3), 1) == drawn)
        #expect(try await text(.random(probabilityThreshold: 0.5, seed: 3)) != drawn)
        #expect(try await text(nil, 1) != greedy)
    }

    @Test func concurrentGenerationsWithAnUnreadOne() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 30)
        let alone = try await model.generate("The queen", options: options)
        // Started, and never read to the end.
        var abandoned = model.streamGenerate("A fox", options: options).makeAsyncIterator()
        _ = try await abandoned.next()
        async let one = model.generate("The queen", options: options)
        async let two = model.generate("The queen", options: options)
        let both = try await [one, two]
        #expect(both == [alone, alone])
        #expect(try await abandoned.next() != nil)
    }

    @Test func sessionRejectsASecondQuestion() async throws {
        let model = try await LanguageModel(folder: tales)
        let session = try LanguageModelSession(model: model, template: .plain)
        #expect(try await !session.isResponding)
        var first: TextStream.Iterator? = session.streamResponse(to: "A fox").makeAsyncIterator()
        _ = try await first?.next()
        #expect(try await session.isResponding)
        await #expect(throws: OpenELMError.concurrentRequests) {
            try await session.respond(to: "A bear")
        }
        first = nil
        #expect(try await !session.isResponding)
    }

    @Test func breakAndCancellationStopTheGeneration() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(
            maximumResponseTokens: 400, ignoreEos: true)
        let session = try LanguageModelSession(model: model, template: .plain)
        for try await _ in session.streamResponse(to: "A fox", options: options) { break }
        let transcript = try await session.transcript
        #expect(transcript.count == 2 && transcript[1].text.count < 60, "the core continued")

        // During decoding, then during prefill.
        let words = String(repeating: " and then", count: 150)
        for (prompt, chunk) in [("A fox", nil), (words, 1)] as [(String, Int?)] {
            var options = options
            options.prefillChunk = chunk
            let session = try LanguageModelSession(model: model, template: .plain)
            let stream = session.streamResponse(to: prompt, options: options).withEvents()
            let (began, begin) = AsyncStream.makeStream(of: Void.self)
            let task = Task {
                for try await event in stream {
                    if chunk != nil { begin.yield() } else if case .token = event { begin.yield() }
                }
            }
            for await _ in began { break }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(try await !session.isResponding, "the core still generates")
            // A generation cancelled before its first token has an empty answer.
            let transcript = try await session.transcript
            #expect(transcript.count == 2 && transcript[1].text.isEmpty == (chunk != nil))
        }
    }

    @Test func cancelsALoadAndUnloadsDuringGeneration() async throws {
        let folder = tales
        let task = Task { try await LanguageModel(folder: folder) }
        task.cancel()
        await #expect(throws: CancellationError.self) { _ = try await task.value }

        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 400, ignoreEos: true)
        var pieces = model.streamGenerate("A fox", options: options).makeAsyncIterator()
        _ = try await pieces.next()
        try await model.unload()
        do {
            // One piece may be ready.
            for _ in 0..<4 { _ = try await pieces.next() }
            Issue.record("the generation continued")
        } catch { #expect(error as? OpenELMError == .unloaded) }
    }

    @Test func cancelledGenerationsLeakNoThread() async throws {
        let model = try await LanguageModel(folder: tales)
        func threads() -> Int? {
            try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task").count
        }
        func cancelled(_ times: Int) async throws {
            for _ in 0..<times {
                for try await _ in model.streamGenerate("A fox").withEvents() { break }
            }
        }
        try await cancelled(20)
        let before = threads()
        try await cancelled(1000)
        if let before, let after = threads() { #expect(after <= before + 4) }
        #expect(try await model.generate("A fox").isEmpty == false)
    }

    @Test func reloadsKeepMemoryConstant() async throws {
        var active: [Int] = []
        /// Resident pages of this process, on Linux.
        func resident() -> Int? {
            guard let counts = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
            else { return nil }
            return counts.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        }
        var pages: [Int] = []
        for _ in 0..<50 {
            let model = try await LanguageModel(folder: tales)
            _ = try await model.generate("A fox", options: .init(maximumResponseTokens: 2))
            try await model.unload()
            active.append(try Memory.statistics.active)
            if let now = resident() { pages.append(now) }
        }
        let (first, last) = (active[4], active[49])
        #expect(last <= first + 1 << 20, "\(active)")
        // Forty-five models of 10 MB would be 450 MB.
        if pages.count == 50 { #expect(pages[49] - pages[4] < 6000, "\(pages)") }
    }

    @Test func pausesAndContinuesGeneration() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 20)
        let whole = try await model.generate("A fox", options: options)
        let started = Task { try await model.generate("A fox", options: options) }
        #expect(try await Memory.pause())
        let held = model.streamGenerate("A bear", options: options)
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

/// Progress values from another thread.
final class ProgressValues: @unchecked Sendable {
    private let lock = NSLock()
    private var numbers: [Double] = []
    var all: [Double] { lock.withLock { numbers } }
    func append(_ number: Double) { lock.withLock { numbers.append(number) } }
}
