"""Tests of apple/nax.py on short excerpts of MLX 0.32.2's sources."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import nax

RULES = """\
if(MLX_METAL_JIT)
  make_jit_source(steel/attn/kernels/steel_attention)

  if(MLX_METAL_VERSION GREATER_EQUAL 400
     AND MACOS_SDK_VERSION VERSION_GREATER_EQUAL 26.2
     AND CMAKE_OSX_DEPLOYMENT_TARGET VERSION_GREATER_EQUAL 26.2)

    make_jit_source(quantized_nax kernels/quantized_utils.h)

  else()
    target_compile_definitions(mlx PRIVATE MLX_METAL_NO_NAX)
  endif()
endif()
"""
DEVICE = """\
auto get_metal_version() {
  auto get_metal_version_ = []() {
    if (__builtin_available(macOS 26, iOS 26, tvOS 26, visionOS 26, *)) {
      return MTL::LanguageVersion4_0;
    } else {
      return MTL::LanguageVersion3_1;
    }
  };
}
  options->setLanguageVersion(get_metal_version());
bool is_nax_available() {
#ifdef MLX_METAL_NO_NAX
  return false;
#else
    if (__builtin_available(
            macOS 26.2, iOS 26.2, tvOS 26.2, visionOS 26.2, *)) {
      can_use_nax = true;
    }
#endif
}
"""


def make_sources(folder, rules=RULES, device=DEVICE):
    """Writes the files that apple/nax.py reads."""
    for name, text in ((nax.RULES, rules), (nax.DEVICE, device)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


class Select(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.sources = Path(folder.name)

    def run_on(self, **texts):
        make_sources(self.sources, **texts)
        return self.again()

    def again(self):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            return nax.main([str(self.sources)]), errors.getvalue()

    def fails(self, words, **texts):
        status, errors = self.run_on(**texts)
        self.assertEqual((status, errors.count("\n")), (1, 1), errors)
        self.assertIn(words, errors)
        self.assertEqual((self.sources / nax.RULES).read_text(), texts.get("rules", RULES))

    def test_a_variable_replaces_the_minimum_system_once(self):
        self.assertEqual(self.run_on(), (0, ""))
        edited = (self.sources / nax.RULES).read_text()
        self.assertIn("  if(OPENELM_NAX)\n\n    make_jit_source(quantized_nax", edited)
        self.assertNotIn("26.2", edited)
        self.assertEqual(self.again(), (0, ""))
        self.assertEqual((self.sources / nax.RULES).read_text(), edited)

    def test_other_rules_fail(self):
        self.fails("mlx/backend/metal/CMakeLists.txt: expected one condition for the NAX kernels, found 0", rules=RULES.replace("26.2", "26.4"))
        self.fails("found 2; apple/nax.py expects MLX 0.32.2", rules=RULES * 2)

    def test_a_missing_check_on_the_device_fails(self):
        self.fails("device.cpp: the check of the system in is_nax_available is missing", device=DEVICE.replace("macOS 26.2, iOS 26.2", "macOS 26.2"))
        # A check elsewhere is not the check of this function.
        self.fails("the check of the system", device=DEVICE.replace("bool is_nax_available() {", "bool is_nax_available() {\n}\nvoid other() {"))
        self.fails("the language version of the running system is missing", device=DEVICE.replace("get_metal_version());", "MTL::LanguageVersion4_0);"))

    def test_a_missing_file_or_argument_fails(self):
        self.assertIn("No such file", self.again()[1])
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(nax.main([]), 1)
        self.assertEqual(errors.getvalue(), "nax: usage: apple/nax.py SOURCES\n")


if __name__ == "__main__":
    unittest.main()
