import Testing

@testable import OpenELM

private typealias Message = LanguageModelSession.Message

@Suite(.serialized) struct ExecutorRequestTests {
    private func instructions(_ text: String) -> Message {
        Message(role: .instructions, text: text)
    }
    private func prompt(_ text: String) -> Message { Message(role: .prompt, text: text) }
    private func response(_ text: String) -> Message { Message(role: .response, text: text) }

    @Test func separatesThePromptFromTheHistory() throws {
        let cases: [([Message], [Message])] = [
            ([prompt("p")], []),
            ([instructions(""), prompt("p")], []),
            ([instructions("a"), prompt("p")], [instructions("a")]),
            ([instructions("a"), instructions("b"), prompt("p")], [instructions("a\nb")]),
            (
                [prompt("a"), response("b"), response("c"), prompt("p")],
                [prompt("a"), response("b\nc")]
            ),
            (
                [instructions("i"), prompt("a"), prompt("b"), response(""), prompt("p")],
                [instructions("i"), prompt("a"), response(""), prompt("b"), response("")]
            ),
        ]
        for (transcript, history) in cases {
            let request = try ExecutorRequest(transcript: transcript)
            #expect(request.history == history && request.prompt == "p")
        }
    }

    @Test func namesTheMessageThatNoSessionCanContinue() {
        let cases: [([Message], Int?, String)] = [
            ([], nil, "expected a prompt at the end of the transcript"),
            ([instructions("a")], 0, "expected a prompt at the end of the transcript"),
            ([prompt("a"), response("b")], 1, "expected a prompt at the end of the transcript"),
            ([response("a"), prompt("p")], 0, "expected a prompt before the first response"),
            (
                [instructions("a"), response("a"), prompt("p")], 1,
                "expected a prompt before the first response"
            ),
            (
                [prompt("a"), instructions("b"), prompt("p")], 1,
                "expected instructions at the beginning only"
            ),
        ]
        for (transcript, index, message) in cases {
            #expect(throws: UnsupportedTranscript(index: index, message: message)) {
                try ExecutorRequest(transcript: transcript)
            }
        }
    }

    /// Without the kept session the history is a new session's, which shares the prefixes of others.
    @Test func extendsTheLastSession() async throws {
        let model = try await LanguageModel(folder: tales)
        let responder = ExecutorResponder(model: model, template: .plain)
        let options = GenerationOptions(maximumResponseTokens: 8)
        var transcript = [instructions("A tale."), prompt("The king")]
        var before = 0
        for next in ["A fox", "The bear", ""] {
            let events = Events()
            try await responder.respond(
                to: ExecutorRequest(transcript: transcript, options: options)
            ) { await events.append($0) }
            let all = await events.all
            guard case .usage(let prompt, let cached, 8)? = all.last else {
                Issue.record("ended with \(String(describing: all.last))")
                return
            }
            #expect(cached >= before && cached < prompt)
            // All but the last generated token, which the model has not read.
            before = prompt + 7
            let text = all.dropLast().map { event in
                if case .text(let text, let tokens) = event, tokens > 0 { text } else { "?" }
            }
            transcript += [response(text.joined()), self.prompt(next)]
        }
    }
}

private actor Events {
    private(set) var all: [ExecutorEvent] = []
    func append(_ event: ExecutorEvent) { all.append(event) }
}
