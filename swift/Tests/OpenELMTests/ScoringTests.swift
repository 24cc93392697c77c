import OpenELM
import Testing

@Suite(.serialized) struct ScoringTests {
    @Test func scoresContinuationsAndTexts() async throws {
        let model = try await LanguageModel(folder: tales)
        let scored = try await model.logLikelihoods(of: [
            .init(context: "Once upon a", continuation: " time"),
            .init(context: "Once upon a", continuation: " stone"),
        ])
        #expect(scored[0].sum > scored[1].sum && scored[0].isGreedy && !scored[1].isGreedy)
        let sum = scored[0].tokenLogprobs.reduce(0, +)
        #expect(abs(Double(sum) - scored[0].sum) < 1e-4)
        let one = try await model.logLikelihood(of: " time", after: "Once upon a")
        #expect(abs(one.sum - scored[0].sum) < 1e-4 && one.tokens == scored[0].tokens)

        let story = "Once upon a time there was a little fox."
        let found = try await model.perplexity(of: [story, "The bear was happy."])
        #expect(found.texts == 2 && found.bytes == story.utf8.count + 19)
        let shuffled = try await model.perplexity(of: ["fox little a was there time a upon Once."])
        #expect(found.perplexity * 2 < shuffled.perplexity)
        await #expect(throws: OpenELMError.self) { try await model.perplexity(of: []) }
    }

    @Test func cancelledScoresEnd() async throws {
        let model = try await LanguageModel(folder: tales)
        let texts = (0..<4000).map { "The fox had \($0) apples and pears." }
        let requests = texts.map { ScoreRequest(continuation: $0) }
        let tasks = [
            Task { _ = try await model.perplexity(of: texts) },
            Task { _ = try await model.logLikelihoods(of: requests) },
        ]
        // A text of another request has its turn.
        _ = try await model.generate("A fox", options: .init(maximumResponseTokens: 2))
        for task in tasks {
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
    }

    @Test func reportsLogProbabilities() async throws {
        let model = try await LanguageModel(folder: tales)
        var options = GenerationOptions(maximumResponseTokens: 6)
        options.logprobs = 3
        var text = ""
        var sum = 0.0
        for try await event in model.streamGenerate("Once upon a", options: options).withEvents() {
            guard case .token(let token) = event else { continue }
            text += token.text
            #expect(token.topLogprobs.count == 3 && token.topLogprobs[0].id == token.id)
            #expect(token.logprob == token.topLogprobs[0].logprob)
            sum += Double(token.logprob ?? 0)
        }
        let scored = try await model.logLikelihood(of: text, after: "Once upon a")
        #expect(abs(scored.sum - sum) < 1e-3)
    }

    @Test func optionsChangeTheText() async throws {
        let model = try await LanguageModel(folder: tales)
        let plain = GenerationOptions(maximumResponseTokens: 24)
        func text(_ change: (inout GenerationOptions) -> Void) async throws -> String {
            var options = plain
            change(&options)
            return try await model.generate("Once upon a time", options: options)
        }
        let usual = try await text { _ in }
        let first = try await model.logLikelihood(of: " there", after: "Once upon a time")
        #expect(try await text { $0.logitBias = [first.tokens[0]: -.infinity] } != usual)
        #expect(try await text { $0.frequencyPenalty = 4 } != usual)
        #expect(try await text { $0.presencePenalty = 4 } != usual)
        #expect(
            try await text {
                $0.dryMultiplier = 8; $0.dryAllowedLength = 1
            } != usual)
        #expect(!(try await text { $0.bannedStrings = ["was"] }).contains("was"))
        #expect(try await text { $0.forcedPrefix = " the wolf" }.hasPrefix(" the wolf"))
        // These change the time or the memory.
        #expect(try await text { $0.promptLookup = 4 } == usual)
        #expect(try await text { $0.kvCache.maxKVSize = 128 } == usual)
        var options = plain
        options.kvCache = KVCacheOptions(kvBits: 8, kvGroupSize: 32, quantizedKVStart: 0)
        let quantized = try await model.streamGenerate("Once upon a time", options: options)
            .collect()
        #expect(quantized.stats.generatedTokens == 24)
    }

    @Test func promptsAreContinuedTogether() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 10)
        let prompts = ["The fox", "A bear", "The king", "Once", "A hare"]
        var expected: [String] = []
        for prompt in prompts {
            expected.append(try await model.generate(prompt, options: options))
        }
        for concurrency in [0, 2, 32] {
            let found = try await model.generate(
                prompts, options: options, concurrency: concurrency)
            #expect(found.map(\.content) == expected)
        }
    }

    @Test func snapshotsGrowToTheText() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 10)
        let text = try await model.generate("The fox", options: options)
        var last = ""
        for try await snapshot in model.streamGenerate("The fox", options: options).snapshots {
            #expect(snapshot.hasPrefix(last) && snapshot.count > last.count)
            last = snapshot
        }
        #expect(last == text)
    }
}

/// An iterator as a property of a type on the main actor.
@MainActor final class Reader {
    private var pieces: TextStream.Iterator
    private(set) var text = ""

    init(_ stream: TextStream) { pieces = stream.makeAsyncIterator() }

    func read() async throws -> Bool {
        var pieces = self.pieces
        defer { self.pieces = pieces }
        guard let piece = try await pieces.next(isolation: MainActor.shared) else { return false }
        text += piece
        return true
    }
}

struct IteratorTests {
    @Test @MainActor func anIteratorIsKeptInAPropertyOfTheMainActor() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 8)
        let reader = Reader(model.streamGenerate("The fox", options: options))
        while try await reader.read() {}
        let text = try await model.generate("The fox", options: options)
        #expect(reader.text == text && !text.isEmpty)
    }
}
