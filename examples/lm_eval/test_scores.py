"""Tests of the model for lm-eval with a program that stands in for `openelm`."""

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
import types
import unittest
from pathlib import Path

import scores

LM_EVAL = importlib.util.find_spec("lm_eval")
# Appends its arguments to the file `calls`. The score of a row is the length of its scored text.
TOOL = f"""#!{sys.executable}
import json, sys
from pathlib import Path
with Path(__file__).with_name("calls").open("a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if "fail" in sys.argv:
    sys.exit(1)
rows = [json.loads(line) for line in sys.stdin]
for row in reversed(rows) if "reverse" in sys.argv else rows[:-1] if "drop" in sys.argv else rows:
    text = row.pop("text", None)
    context, continuation = row.pop("context", None), row.pop("continuation", None)
    assert (text is None) == (context is not None) == (continuation is not None)
    row |= {{"logprob": -len(text or continuation), "is_greedy": context == "", "tokens": 1}}
    print(json.dumps(row, ensure_ascii=False))
"""


class Scores(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tool = Path(folder.name) / "openelm"
        self.tool.write_text(TOOL)
        self.tool.chmod(0o755)

    def command(self, model="folder", **options):
        return scores.command(self.tool, model, options)

    def calls(self):
        file = self.tool.with_name("calls")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def test_gives_options_to_the_program(self):
        options = {"dtype": "float32", "keep_quantized": True, "quiet": False, "window": 8}
        options["adapter"] = ["a", "b"]
        words = scores.command("openelm", "folder", options)
        expected = "openelm score --model folder --jsonl - --dtype float32 --keep-quantized --window 8"
        self.assertEqual(words, [*expected.split(), "--adapter", "a", "--adapter", "b"])

    def test_scores_continuations_in_one_process(self):
        pairs = [("The sky\n is", " blue"), ("", "é\u2028\x85"), ("a", "b")]
        found = scores.loglikelihoods(self.command(), pairs)
        self.assertEqual(found, [(-5.0, False), (-3.0, True), (-1.0, False)])
        self.assertEqual(self.calls(), [["score", "--model", "folder", "--jsonl", "-"]])

    def test_scores_texts(self):
        found = scores.rolling_loglikelihoods(self.command(), ["one\ntwo\n", "\u2028é"])
        self.assertEqual(found, [-8.0, -2.0])

    def test_starts_no_process_without_requests(self):
        self.assertEqual(scores.loglikelihoods(self.command(), []), [])
        self.assertEqual(self.calls(), [])

    def test_refuses_failures_and_missing_rows(self):
        problems = {"fail": "exit status 1", "reverse": "expected 2 rows", "drop": "found 1"}
        for model, problem in problems.items():
            with self.subTest(model), self.assertRaisesRegex(RuntimeError, problem):
                scores.rolling_loglikelihoods(self.command(model), ["a", "b"])
        with self.assertRaisesRegex(FileNotFoundError, "binary: .*`missing/openelm` was not found"):
            scores.rolling_loglikelihoods(scores.command("missing/openelm", "folder", {}), ["a"])

    @unittest.skipUnless(LM_EVAL, "lm-eval is not installed")
    def test_is_a_model_of_lm_eval(self):
        with contextlib.redirect_stderr(io.StringIO()):
            import openelm_lm  # noqa: F401 (registers the model)
            from lm_eval.api.registry import get_model
        arguments = {"pretrained": "folder", "binary": str(self.tool), "dtype": "float32"}
        model = get_model("openelm").create_from_arg_obj(arguments, {"batch_size": 1, "device": "cuda:0"})
        pair, text = types.SimpleNamespace(args=("a", " b")), types.SimpleNamespace(args=("abc",))
        self.assertEqual(model.loglikelihood([pair]), [(-2.0, False)])
        self.assertEqual(model.loglikelihood_rolling([text]), [-3.0])
        call = ["score", "--model", "folder", "--jsonl", "-", "--dtype", "float32"]
        self.assertEqual(self.calls(), [call, call])
        with self.assertRaisesRegex(NotImplementedError, "generate_until"):
            model.generate_until([pair])


if __name__ == "__main__":
    unittest.main()
