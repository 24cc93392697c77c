import Testing

@testable import openelm_chat

@Suite struct LocalizedTests {
    @Test(arguments: [
        ("none", [], "none"),
        ("%@ and %@", ["a", "b"], "a and b"),
        ("%2$@ before %1$@", ["a", "b"], "b before a"),
        // Values are no templates.
        ("%@, %@", ["%@", "%1$@"], "%@, %1$@"),
        ("100% of %@, %", ["a"], "100% of a, %"),
        ("%@ %@ %9$@ %0$@ %1", ["a"], "a %@ %9$@ %0$@ %1"),
    ])
    func fillsPlaceholders(text: String, values: [String], expected: String) {
        #expect(filled(text, values) == expected)
    }

    @Test func aTextWithoutATranslationIsItsKey() {
        #expect(
            localized("%@ exists. Choose another name.", "A") == "A exists. Choose another name.")
    }
}
