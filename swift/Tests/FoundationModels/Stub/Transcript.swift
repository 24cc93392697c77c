// swift-format-ignore-file
// A stub, see LanguageModel.swift.
import Foundation

public struct Transcript: Sendable, Equatable, RandomAccessCollection {
    private var entries: [Entry]
    public init(entries: some Sequence<Entry> = []) { self.entries = Array(entries) }
    public var startIndex: Int { entries.startIndex }
    public var endIndex: Int { entries.endIndex }
    public subscript(index: Int) -> Entry { entries[index] }
    mutating func append(_ entry: Entry) { entries.append(entry) }

    public enum Entry: Sendable, Equatable {
        case instructions(Instructions)
        case prompt(Prompt)
        case toolCalls(ToolCalls)
        case toolOutput(ToolOutput)
        case response(Response)
        case reasoning(Reasoning)
    }

    public enum Segment: Sendable, Equatable {
        case text(TextSegment)
        case structure(StructuredSegment)
        case attachment(AttachmentSegment)
    }

    public struct TextSegment: Sendable, Equatable {
        public var id: String
        public var content: String
        public init(id: String = UUID().uuidString, content: String) {
            self.id = id
            self.content = content
        }
    }

    public struct StructuredSegment: Sendable, Equatable {
        public var id: String
        public var schemaName: String
        public var content: GeneratedContent
        public init(id: String = UUID().uuidString, schemaName: String, content: GeneratedContent) {
            self.id = id
            self.schemaName = schemaName
            self.content = content
        }
    }

    // Apple's has an image.
    public struct AttachmentSegment: Sendable, Equatable {
        public var id: String
        public var label: String?
        public init(id: String = UUID().uuidString, label: String? = nil) {
            self.id = id
            self.label = label
        }
    }

    public struct Instructions: Sendable, Equatable {
        public var id: String
        public var segments: [Segment]
        public var toolDefinitions: [ToolDefinition]
        public init(
            id: String = UUID().uuidString, segments: [Segment], toolDefinitions: [ToolDefinition]
        ) {
            self.id = id
            self.segments = segments
            self.toolDefinitions = toolDefinitions
        }
    }

    public struct Prompt: Sendable, Equatable {
        public var id: String
        public var segments: [Segment]
        public var options: GenerationOptions
        public init(
            id: String = UUID().uuidString, segments: [Segment],
            options: GenerationOptions = GenerationOptions()
        ) {
            self.id = id
            self.segments = segments
            self.options = options
        }
    }

    public struct Response: Sendable, Equatable {
        public var id: String
        public var assetIDs: [String]
        public var segments: [Segment]
        public init(id: String = UUID().uuidString, assetIDs: [String], segments: [Segment]) {
            self.id = id
            self.assetIDs = assetIDs
            self.segments = segments
        }
    }

    public struct Reasoning: Sendable, Equatable {
        public var id: String
        public var segments: [Segment]
        public init(id: String = UUID().uuidString, segments: [Segment]) {
            self.id = id
            self.segments = segments
        }
    }

    public struct ToolCalls: Sendable, Equatable {
        public var id: String
        public init(id: String = UUID().uuidString) { self.id = id }
    }

    public struct ToolOutput: Sendable, Equatable {
        public var id: String
        public var toolName: String
        public var segments: [Segment]
        public init(id: String, toolName: String, segments: [Segment]) {
            self.id = id
            self.toolName = toolName
            self.segments = segments
        }
    }

    public struct ToolDefinition: Sendable, Equatable {
        public var name: String
        public var description: String
        public init(name: String, description: String) {
            self.name = name
            self.description = description
        }
    }
}

public protocol ConvertibleToGeneratedContent: Sendable {
    var generatedContent: GeneratedContent { get }
}

public struct GeneratedContent: Sendable, Equatable, ConvertibleToGeneratedContent {
    public let jsonString: String
    public init(json: String) throws {
        _ = try JSONSerialization.jsonObject(with: Data(json.utf8), options: .fragmentsAllowed)
        jsonString = json
    }
    public var generatedContent: GeneratedContent { self }
}

public protocol ConvertibleFromGeneratedContent {
    init(_ content: GeneratedContent) throws
}

// Apple's has a partially generated type, and a schema that does not throw.
public protocol Generable: ConvertibleFromGeneratedContent {
    static var generationSchema: GenerationSchema { get throws }
}

// Apple's is made from types; it, too, encodes as a JSON schema.
public struct GenerationSchema: Sendable, Codable {
    private let schema: Value
    public init(stub json: String) throws {
        schema = try JSONDecoder().decode(Value.self, from: Data(json.utf8))
    }
    public init(from decoder: any Decoder) throws { schema = try Value(from: decoder) }
    public func encode(to encoder: any Encoder) throws { try schema.encode(to: encoder) }

    private enum Value: Sendable, Codable {
        case string(String)
        case boolean(Bool)
        case array([Value])
        case object([String: Value])

        init(from decoder: any Decoder) throws {
            let value = try decoder.singleValueContainer()
            if let string = try? value.decode(String.self) {
                self = .string(string)
            } else if let boolean = try? value.decode(Bool.self) {
                self = .boolean(boolean)
            } else if let array = try? value.decode([Value].self) {
                self = .array(array)
            } else {
                self = .object(try value.decode([String: Value].self))
            }
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .string(let string): try container.encode(string)
            case .boolean(let value): try container.encode(value)
            case .array(let array): try container.encode(array)
            case .object(let object): try container.encode(object)
            }
        }
    }
}
