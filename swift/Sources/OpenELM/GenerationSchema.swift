import Foundation

/// A JSON schema for guided generation.
///
///     let character = GenerationSchema.object([
///         .init("name", .string()),
///         .init("age", .integer(in: 0...120)),
///         .init("traits", .array(of: .string(), count: 1...3)),
///     ])
public struct GenerationSchema: Sendable, Hashable, Codable {
    /// The schema as JSON text.
    public let json: String

    /// Creates a schema of JSON text, of drafts 4 to 2020-12. The text is checked when it is used.
    public init(json: String) { self.json = json }

    /// A property of an object.
    public struct Property: Sendable, Hashable {
        let name: String
        let schema: GenerationSchema
        let isOptional: Bool

        /// Creates a property. An optional property may be absent.
        public init(_ name: String, _ schema: GenerationSchema, isOptional: Bool = false) {
            self.name = name
            self.schema = schema
            self.isOptional = isOptional
        }
    }

    /// An object with these properties, in this order, and no others.
    public static func object(_ properties: [Property]) -> GenerationSchema {
        let members = properties.map { "\(quoted($0.name)):\($0.schema.json)" }
        let required = properties.filter { !$0.isOptional }.map { quoted($0.name) }
        return GenerationSchema(
            json: "{\"type\":\"object\",\"properties\":{\(members.joined(separator: ","))},"
                + "\"required\":[\(required.joined(separator: ","))],"
                + "\"additionalProperties\":false}")
    }

    /// An array with elements of this schema; `count` limits their number.
    public static func array(
        of element: GenerationSchema, count: ClosedRange<Int>? = nil
    ) -> GenerationSchema {
        let limits =
            count.map { ",\"minItems\":\($0.lowerBound),\"maxItems\":\($0.upperBound)" } ?? ""
        return GenerationSchema(json: "{\"type\":\"array\",\"items\":\(element.json)\(limits)}")
    }

    /// A string; `maximumLength` limits its characters.
    public static func string(maximumLength: Int? = nil) -> GenerationSchema {
        let limit = maximumLength.map { ",\"maxLength\":\($0)" } ?? ""
        return GenerationSchema(json: "{\"type\":\"string\"\(limit)}")
    }

    /// A string that matches this regular expression.
    public static func string(matching pattern: String) -> GenerationSchema {
        GenerationSchema(json: "{\"type\":\"string\",\"pattern\":\(quoted(pattern))}")
    }

    /// One of these strings.
    public static func anyOf(_ choices: [String]) -> GenerationSchema {
        let choices = choices.map(quoted).joined(separator: ",")
        return GenerationSchema(json: "{\"enum\":[\(choices)]}")
    }

    /// A value of one of these schemas.
    public static func anyOf(_ schemas: [GenerationSchema]) -> GenerationSchema {
        let schemas = schemas.map(\.json).joined(separator: ",")
        return GenerationSchema(json: "{\"anyOf\":[\(schemas)]}")
    }

    /// An integer, in this range if there is one.
    public static func integer(in range: ClosedRange<Int>? = nil) -> GenerationSchema {
        let limits =
            range.map { ",\"minimum\":\($0.lowerBound),\"maximum\":\($0.upperBound)" } ?? ""
        return GenerationSchema(json: "{\"type\":\"integer\"\(limits)}")
    }

    /// A number.
    public static let number = GenerationSchema(json: "{\"type\":\"number\"}")

    /// `true` or `false`.
    public static let boolean = GenerationSchema(json: "{\"type\":\"boolean\"}")
}

/// A type that a model can generate: its values are decoded from JSON of its schema.
public protocol Guided: Decodable, Sendable {
    /// The schema of the JSON text that values are decoded from.
    static var generationSchema: GenerationSchema { get }
}

/// The text as a JSON string.
private func quoted(_ text: String) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .withoutEscapingSlashes
    // Encoding a string does not fail.
    let data = (try? encoder.encode(text)) ?? Data("\"\"".utf8)
    return String(decoding: data, as: UTF8.self)
}
