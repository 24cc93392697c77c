"""Tests of check_strings.py with sources and catalogues made here."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import check_strings

VIEW = r"""
#if canImport(SwiftUI)
    import SwiftUI
    // "a comment"
    struct Row: View {
        var body: some View {
            Button("Use \(entry.name(of: "inner"))", systemImage: isOpen ? "checkmark" : "circle") {
                print("to the log")
            }
            Text(verbatim: "as it is")
            Label(title, systemImage: "tray") // "one more"
            Text(long ? "a \"quoted\" text" : "")
        }
    }
#endif
"""
MODEL = r"""
let file = "settings.json"
let text = localized(
    "The file %@ is missing.", "not a key")
"""
USED = {"Use %@": {}, "inner": {}, 'a "quoted" text': {}, "The file %@ is missing.": {"extractionState": "manual"}}


class Strings(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "Row.swift").write_text(VIEW)
        (self.folder / "File.swift").write_text(MODEL)

    def check(self, strings, **more):
        (self.folder / "Localizable.xcstrings").write_text(json.dumps({"sourceLanguage": "en", "strings": strings, "version": "1.0"}))
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                check_strings.main(self.folder, **more)
            except SystemExit as end:
                return end.code
        return None

    def test_accepts_the_strings_of_the_sources(self):
        self.assertIsNone(self.check(USED))

    def test_names_missing_and_unused_strings(self):
        self.assertEqual(self.check({key: entry for key, entry in USED.items() if key != "inner"}), "Localizable.xcstrings: missing: 'inner'")
        self.assertEqual(self.check({**USED, "circle": {}}), "Localizable.xcstrings: not used: 'circle'")

    def test_keys_that_xcode_does_not_find_are_manual(self):
        self.assertIn("manual", self.check({**USED, "The file %@ is missing.": {}}))

    def test_translations_have_the_placeholders_of_their_keys(self):
        def german(value):
            return {"localizations": {"de": {"stringUnit": {"state": "translated", "value": value}}}}

        self.assertIsNone(self.check({**USED, "Use %@": german("%1$@ verwenden")}))
        self.assertIn("de: expected 1 placeholders", self.check({**USED, "Use %@": german("Verwenden")}))

    def test_write_adds_and_removes_keys_and_keeps_translations(self):
        german = {"de": {"stringUnit": {"state": "translated", "value": "innen"}}}
        self.assertIsNone(self.check({"inner": {"localizations": german}, "old": {}}, write=True))
        written = json.loads((self.folder / "Localizable.xcstrings").read_text())["strings"]
        self.assertEqual(written, {**USED, "inner": {"localizations": german}})


if __name__ == "__main__":
    unittest.main()
