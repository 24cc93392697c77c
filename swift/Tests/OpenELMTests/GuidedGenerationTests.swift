import Foundation
import OpenELM
import Testing

@Suite(.serialized) struct GuidedGenerationTests {
    struct Character: Guided, Equatable {
        let name: String
        let age: Int
        let traits: [String]

        static let generationSchema = GenerationSchema.object([
            .init("name", .string(maximumLength: 12)),
            .init("age", .integer(in: 1...99)),
            .init("traits", .array(of: .anyOf(["kind", "brave"]), count: 1...2)),
        ])
    }

    @Test func decodesAValueOfItsSchema() async throws {
        let model = try await LanguageModel(folder: tales)
        let options = GenerationOptions(maximumResponseTokens: 80)
        let one = try await model.generate(
            "The hero: ", generating: Character.self, options: options)
        #expect((1...99).contains(one.age) && (1...2).contains(one.traits.count))

        let session = try LanguageModelSession(model: model)
        let answer = try await session.respond(
            to: "The hero: ", generating: Character.self, options: options)
        #expect(answer.content == one)
        #expect(try await session.transcript.last?.text == answer.rawContent)
        let value = try JSONSerialization.jsonObject(with: Data(answer.rawContent.utf8))
        #expect((value as? [String: Any])?.count == 3)

        let text = try await session.respond(
            to: " Another: ", schema: .object([.init("isKind", .boolean)]), options: options)
        #expect(["{\"isKind\":true}", "{\"isKind\":false}"].contains(compact(text.content)))
    }

    @Test func aValueIsCompleteAtTheLimit() async throws {
        let model = try await LanguageModel(folder: tales)
        for limit in 16...20 {
            let options = GenerationOptions(maximumResponseTokens: limit)
            let list = try await model.generate(
                "Words: ", generating: [String].self, schema: .array(of: .string(), count: 1...9),
                options: options)
            #expect((1...9).contains(list.count))
        }
        var options = GenerationOptions(maximumResponseTokens: 4)
        options.guideAtLimit = .error
        await #expect(throws: OpenELMError.incomplete(tokens: 4)) {
            try await model.generate(
                "Words: ", generating: [String].self,
                schema: .array(of: .string(), count: 3...3), options: options)
        }
    }

    @Test func textsFollowChoicesExpressionsAndGrammars() async throws {
        let model = try await LanguageModel(folder: tales)
        var options = GenerationOptions(samplingMode: .random(seed: 3), maximumResponseTokens: 40)
        options.guide = .choices(["yes", "no"])
        let choice = try await model.generate("Is it good? ", options: options)
        #expect(["yes", "no"].contains(choice))
        options.guide = .regex("[0-9]{3}-[a-f]{2}")
        let code = try await model.generate("Code: ", options: options)
        #expect(code.wholeMatch(of: #/[0-9]{3}-[a-f]{2}/#) != nil, "\(code)")
        options.guide = .grammar("start: \"A\" (\" fox\" | \" bear\")+ \".\"")
        options.guideAtLimit = .close
        let sentence = try await model.generate("Say: ", options: options)
        #expect(sentence.wholeMatch(of: #/A( fox| bear)+\./#) != nil, "\(sentence)")
    }

    @Test func errorsNameTheSchemaAndTheType() async throws {
        let model = try await LanguageModel(folder: tales)
        func error(_ schema: GenerationSchema) async -> OpenELMError? {
            do {
                _ = try await model.generate("A", generating: Int.self, schema: schema)
                return nil
            } catch { return error as? OpenELMError }
        }
        guard case .invalidOption("schema", let message) = await error(.init(json: "{")) else {
            Issue.record("malformed JSON was accepted")
            return
        }
        #expect(message.hasPrefix("schema: "), "\(message)")
        guard case .undecodable(let text, _) = await error(.anyOf(["a", "b"])) else {
            Issue.record("a string was decoded as a number")
            return
        }
        #expect(text == "\"a\"" || text == "\"b\"")
    }

    @Test func schemasAreJSON() throws {
        let schema = GenerationSchema.object([
            .init("a\"b", .string(matching: "[a-z]\\d/")),
            .init("n", .number, isOptional: true),
            .init("x", .anyOf([.integer(), .boolean])),
        ])
        let value = try JSONSerialization.jsonObject(with: Data(schema.json.utf8))
        let object = try #require(value as? [String: Any])
        #expect(object["required"] as? [String] == ["a\"b", "x"])
        let properties = try #require(object["properties"] as? [String: [String: Any]])
        #expect(properties["a\"b"]?["pattern"] as? String == "[a-z]\\d/")
        #expect(
            try JSONDecoder().decode(
                GenerationSchema.self, from: JSONEncoder().encode(schema)) == schema)
    }

    private func compact(_ json: String) -> String {
        json.replacingOccurrences(of: " ", with: "")
    }
}
