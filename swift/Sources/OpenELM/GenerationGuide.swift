internal import OpenELMBindings

/// A constraint on a generated text, which follows it from its first character to its last (guided
/// generation).
///
///     options.guide = .choices(["yes", "no"])
public enum GenerationGuide: Sendable, Hashable, Codable {
    /// JSON that is valid under this schema.
    case schema(GenerationSchema)
    /// A text that matches this regular expression, in the syntax of Rust's `regex`: without
    /// look-around and back-references.
    case regex(String)
    /// A sentence of this grammar, in llguidance's variant of Lark's syntax. The start rule is
    /// `start`.
    case grammar(String)
    /// One of these strings.
    case choices([String])

    /// The end of a text that reaches its maximum number of tokens, or the end of the context.
    public enum AtLimit: String, Sendable, Codable, CaseIterable {
        /// The text ends there; it may be incomplete.
        case stop
        /// An incomplete text fails with ``OpenELMError/incomplete(tokens:)``.
        case error
        /// The last tokens close what is open, so that the text is complete.
        case close

        var ffi: OpenELMBindings.AtLimit {
            switch self {
            case .stop: .stop
            case .error: .error
            case .close: .close
            }
        }
    }

    var constraint: OpenELMBindings.Constraint {
        switch self {
        case .schema(let schema): .jsonSchema(schema: schema.json)
        case .regex(let pattern): .regex(pattern: pattern)
        case .grammar(let grammar): .grammar(grammar: grammar)
        case .choices(let choices): .choice(choices: choices)
        }
    }
}
