import Foundation
import OpenELM
import Testing

/// Random sequences of actions. `OPENELM_SEQUENCES` is their number, `OPENELM_SEED` repeats them.
@MainActor @Suite(.serialized) struct RandomConversationTests {
    /// A generator with a seed (SplitMix64).
    struct Seeded: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    /// The view, the session and a restored session have the same messages after every action.
    @Test func messagesTranscriptAndRestoredSessionAreEqual() async throws {
        let environment = ProcessInfo.processInfo.environment
        let sequences = environment["OPENELM_SEQUENCES"].flatMap(Int.init) ?? 40
        let seed = environment["OPENELM_SEED"].flatMap(UInt64.init) ?? .random(in: 0...1_000_000)
        let model = try await LanguageModel(folder: tales)
        let folder = try Folder()
        let file = folder.url.appending(path: "session.safetensors")
        for sequence in 0..<sequences {
            var random = Seeded(state: seed &+ UInt64(sequence))
            var conversation = try Conversation(
                model: model, instructions: Bool.random(using: &random) ? "Tell a story. " : nil)
            for step in 0..<Int.random(in: 1...6, using: &random) {
                let what: Comment = "OPENELM_SEED=\(seed), sequence \(sequence), step \(step)"
                conversation.options = options(&random)
                conversation.send(
                    ["A fox", " The bear", "</s>", "Once", ""].randomElement(using: &random)!)
                await interrupt(conversation, &random)
                await conversation.finish()
                let messages = conversation.messages
                let transcript = try await conversation.transcript
                let shown = transcript.filter { $0.role != .instructions }
                #expect(messages.map(\.text) == shown.map(\.text), what)
                #expect(messages.map(\.role) == shown.map(\.role), what)
                #expect(messages.map(\.id) == Array(messages.indices), what)
                #expect(!conversation.isResponding, what)
                let restored = try LanguageModelSession(model: model, transcript: transcript)
                #expect(try await restored.transcript == transcript, what)
                switch Int.random(in: 0..<8, using: &random) {
                case 0:
                    try await conversation.save(to: file)
                    conversation = try await Conversation(model: model, contentsOf: file)
                case 1: conversation = try Conversation(model: model, transcript: transcript)
                case 2: conversation.prewarm(promptPrefix: "A ")
                default: continue
                }
                #expect(conversation.messages.map(\.text) == messages.map(\.text), what)
                #expect(try await conversation.transcript == transcript, what)
            }
        }
    }

    private func options(_ random: inout Seeded) -> GenerationOptions {
        var options = GenerationOptions(
            maximumResponseTokens: Int.random(in: 0...6, using: &random))
        switch Int.random(in: 0..<8, using: &random) {
        case 0: options.temperature = -1
        case 1: options.stop = [" "]
        case 2: options.guide = .choices(["yes", "no"])
        case 3: options.maximumResponseTokens = 400
        default: break
        }
        return options
    }

    /// Stops the answer at once, during it, or not at all.
    private func interrupt(_ conversation: Conversation, _ random: inout Seeded) async {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: conversation.stop()
        case 1:
            conversation.send("nothing meanwhile")
            for _ in 0..<Int.random(in: 0..<400, using: &random) { await Task.yield() }
            conversation.stop()
        default:
            // Long answers are stopped.
            guard conversation.options.maximumResponseTokens == 400 else { return }
            while conversation.isResponding, conversation.messages.last?.text.isEmpty == true {
                await Task.yield()
            }
            conversation.stop()
        }
    }
}
