"""Shows that each check finds its violation: `python3 -B -m unittest` in this folder."""

import json
import os
import random
import signal
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import checks
import containers
import damage
import options
import process
import values
from cases import Case, Files
from readers import all_readers
from report import Report

# A tool that does what its first argument says.
TOOL = '''
import os, sys, time, signal, subprocess
from pathlib import Path
def panic(): sys.stderr.write("thread 'main' panicked at src/main.rs:1:1"); sys.exit(101)
def abort(): os.abort()
def hang():
    while True: pass
def sleep(): time.sleep(60)
def memory(): data = bytearray(200 << 20); sys.exit(0)
def partial(): Path("out").mkdir(); Path("out/config.json").write_text("{}"); fail("input.json: bad")
def leftover(): Path("out").mkdir(); Path("out/.model.partial").write_text(""); sys.exit(0)
def hidden(): Path(".out.partial").write_text(""); fail("input.json: bad")
def saved():
    Path("out").mkdir()
    Path("out/training_state.safetensors").write_text("")
    fail("input.json: bad")
def changes(): Path("input.json").write_text("other"); sys.exit(0)
def nothing(): fail("not found")
def silent(): sys.exit(1)
def names(): fail("input.json: expected an object")
def long(): fail("input.json: " + "x" * 3000)
def lines(): fail("input.json\\n" * 20)
def control(): fail("input.json: \\x1b[31m")
def bidi(): fail("input.json: \\u202e")
def code(): sys.exit(7)
def child(): subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]); sys.exit(0)
def nan(): print('{"loss": NaN}'); sys.exit(0)
def succeed(): print('{"loss": 1.5}'); sys.exit(0)
def job():
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    print('{"iteration": 1}', flush=True)
    while True: pass
def stubborn():
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append(1) or len(seen) < 2 or sys.exit(130))
    print('{"iteration": 1}', flush=True)
    while True: pass
def fail(text): sys.stderr.buffer.write(("openelm: " + text + "\\n").encode()); sys.exit(1)
globals()[sys.argv[1]]()
'''


class Checks(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self.scratch.name) / "case"
        self.folder.mkdir()
        (self.folder / "input.json").write_text("{}")
        self.tool = Path(self.scratch.name) / "tool.py"
        self.tool.write_text(TOOL)

    def tearDown(self):
        self.scratch.cleanup()

    def outcome(self, action, kind="file", **given):
        case = Case(f"{kind}:0", kind, "test", "", [action, *given.pop("more", [])], ("input.json",),
                    ("out",), **given)
        before = checks.listing(self.folder)
        result = process.run([sys.executable, str(self.tool), *case.command], self.folder,
                             f"{self.folder}.streams", interrupt=case.long)
        found = list(checks.problems(case, result, before, checks.listing(self.folder)))
        return case, result, found

    def found(self, action, kind="file", **given):
        return [check for check, _ in self.outcome(action, kind, **given)[2]]

    def test_finds_a_panic(self):
        self.assertEqual(self.found("panic"), ["panic"])

    def test_finds_a_signal(self):
        self.assertEqual(self.found("abort"), ["signal"])

    def test_finds_a_busy_process(self):
        with mock.patch.multiple(process, CPU_SECONDS=1), mock.patch.multiple(checks, CPU_SECONDS=1):
            self.assertEqual(self.found("hang"), ["hang"])

    def test_finds_a_waiting_process(self):
        with mock.patch.multiple(process, WALL_SECONDS=1.5):
            self.assertEqual(self.found("sleep"), ["hang"])

    def test_finds_much_memory(self):
        with mock.patch.multiple(checks, MEMORY_BYTES=100 << 20):
            self.assertEqual(self.found("memory"), ["memory"])
        self.assertEqual(self.found("memory"), [])

    def test_finds_what_a_failed_command_leaves(self):
        self.assertEqual(self.found("partial"), ["partial output"])

    def test_finds_unfinished_files(self):
        self.assertEqual(self.found("leftover"), ["left over"])
        (self.folder / "out/.model.partial").unlink()
        (self.folder / "out").rmdir()
        self.assertEqual(self.found("hidden"), ["left over", "partial output"])

    def test_accepts_the_folder_of_a_run_that_saved(self):
        self.assertEqual(self.found("saved", trains=True), [])

    def test_finds_a_changed_input(self):
        self.assertEqual(self.found("changes"), ["input changed"])

    def test_finds_a_replaced_device(self):
        with mock.patch.multiple(checks, DEVICES=(str(self.tool),)):
            self.assertEqual(self.found("succeed"), ["device"])

    def test_finds_bad_messages(self):
        for action, check in (("silent", "message"), ("long", "message"), ("lines", "message"),
                              ("control", "control"), ("bidi", "control")):
            self.assertEqual(self.found(action), [check], action)

    def test_finds_an_unknown_exit_code(self):
        self.assertEqual(self.found("code"), ["exit code"])

    def test_finds_a_process_that_is_left(self):
        self.assertEqual(self.found("child"), ["process"])

    def test_finds_json_that_is_none(self):
        self.assertEqual(self.found("nan", more=["--json"]), ["json"])
        self.assertEqual(self.found("succeed", more=["--json"]), [])

    def test_finds_a_success_with_weights_that_are_not_finite(self):
        self.assertEqual(self.found("succeed", must_fail=True), ["silent"])

    def test_finds_a_valid_input_that_is_refused(self):
        self.assertEqual(self.found("names", must_succeed=True), ["valid input"])
        self.assertEqual(self.found("succeed", must_succeed=True), [])

    def test_accepts_a_long_job_that_ends_at_an_interrupt(self):
        # The second interrupt is late: a busy machine needs time for the first.
        with mock.patch.multiple(process, INTERRUPT_CPU=(0.2, 30)):
            _, result, found = self.outcome("job", "option", more=["--json"], extreme=True,
                                              long=True)
            self.assertEqual((found, result.stopped, result.code), ([], "interrupted", 130))
            self.assertEqual(self.found("hang", "option", more=["--json"], extreme=True, long=True),
                             ["hang"])

    def test_finds_a_job_that_ignores_the_first_interrupt(self):
        with mock.patch.multiple(process, INTERRUPT_CPU=(0.2, 1)):
            _, result, found = self.outcome("stubborn", "option", long=True)
            self.assertEqual((found, result.stopped, result.code), ([], "interrupted twice", 130))
            self.assertEqual(self.found("stubborn", long=True), ["hang"])

    def test_rates_messages_by_the_file_that_they_name(self):
        report = Report()
        for action in ["names"] * 97 + ["nothing"] * 3:
            case, result, found = self.outcome_once(action)
            report.add(case, result, found)
        self.assertFalse(report.groups)
        self.assertAlmostEqual(report.share("file"), 0.97)
        self.assertFalse(report.passed())
        self.assertIn("100 file cases: 100 messages, of which 97.00% name the mutated file",
                      list(report.lines()))

    def test_excuses_the_limit_of_a_file_for_options_only(self):
        case = lambda kind: mock.Mock(kind=kind, names=["--rank"])
        full = mock.Mock(stderr=b"openelm: out/state: File too large (os error 27)")
        self.assertTrue(checks.named(case("option"), full))
        self.assertFalse(checks.named(case("file"), full))
        self.assertFalse(checks.named(case("option"), mock.Mock(stderr=b"openelm: out/state: full")))

    def outcome_once(self, action, seen={}):
        if action not in seen:
            seen[action] = self.outcome(action)
        return seen[action]

    def test_fails_for_one_violation(self):
        report = Report()
        report.add(*self.outcome("names"))
        self.assertTrue(report.passed())
        report.add(*self.outcome("panic"))
        self.assertFalse(report.passed())
        self.assertIn("1 cases with a violation", list(report.lines()))


HELP = """Usage: openelm finetune [OPTIONS]

Options:
  -m, --model <FOLDER>         Model folder
      --rank <N>               Rank of the adapter [default: 8]
      --dpo <LOSS>             Loss [possible
                               values: sigmoid, hinge]
      --new-number <BYTES>     An option that was added later
      --resume                 Resume the run
      --betas <X,X>
          Betas
"""


class OptionCases(unittest.TestCase):
    def test_reads_the_options_from_the_help(self):
        found = [(option.flag, option.numeric) for option in options.parse(HELP)]
        self.assertEqual(found, [("--model", False), ("--rank", True), ("--new-number", True),
                                 ("--betas", True)])

    def test_sets_a_key_of_the_toml_file_once(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.toml"
            for seed in range(8):
                path.write_text("rank = 8\nnew-rank = 1\n[model]\nmodel_dim = 3\n")
                option = options.Option("--rank", "N", True)
                options.set_in_toml(path, option, "nan", random.Random(seed))
                lines = path.read_text().splitlines()
                self.assertEqual([line for line in lines if line.startswith("rank")], ["rank = nan"])
                self.assertIn("new-rank = 1", lines)

    def test_finds_values_beyond_any_machine(self):
        extreme = [value for value in ("2147483648", "nan", "1,1e30", "2147483647", "-1", "x")
                   if options.is_extreme(value)]
        self.assertEqual(extreme, ["2147483648", "nan", "1,1e30"])

    def test_keeps_outputs_in_the_folder(self):
        command = options.Command("fuse", ["fuse", "--save-path", "out"], [], ("out",), False, None, [])
        option = options.Option("--save-path", "FOLDER", False)
        for seed in range(50):
            value = options.any_value(command, option, random.Random(seed))
            self.assertFalse(value.startswith("/") or ".." in value)


class FileCases(unittest.TestCase):
    def test_mutates_every_form(self):
        vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}
        header = {"a.weight": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
        pickled = containers.torch_pickle({"a": containers.Tensor([2, 1], bytes(8))})
        lines = b'{"text": "a"}\n{"text": "b"}\n'
        contents = {
            "json": json.dumps({"a": [1, {"b": "x"}]}).encode(), "jsonl": lines,
            "toml": b"rank = 8\n[model]\ndim = 2\n", "text": b"once\n",
            "bytes": containers.sentencepiece(containers.pieces_of(vocabulary)),
            "safetensors": containers.write_safetensors(header, bytes(8)),
            "gguf": b"GGUF" + bytes(range(200)), "torch": containers.torch_zip(*pickled),
            "jsonl.gz": damage.gzip.compress(lines), "jsonl.zst": containers.zstd(lines),
            "parquet": containers.parquet([b"once " * 60, b"upon " * 60]),
            "txt.gz": damage.gzip.compress(b"once"), "txt.zst": containers.zstd(b"once"),
        }
        self.assertEqual(contents.keys(), damage.FORMS.keys())
        for form, data in contents.items():
            made = {damage.FORMS[form](data, random.Random(seed))[0] for seed in range(60)}
            self.assertGreater(len(made), 15, form)

    def test_keeps_unframed_data(self):
        data = os.urandom(250_000)
        self.assertEqual(damage.unframed(containers.zstd(data)), data)

    def test_mutates_json_in_every_way(self):
        seen = {values.mutate_json('{"a": {"b": [1, 2.5], "c": "x"}, "d": null}', random.Random(seed))[1]
                .split()[0] for seed in range(500)}
        self.assertLessEqual({"replace", "nudge", "delete", "duplicate", "rename", "unknown", "swap",
                              "append", "insert"}, seen)

    def test_repeats_a_case(self):
        with tempfile.TemporaryDirectory() as scratch:
            base = Path(scratch) / "base"
            for name in "config.json", "model.safetensors":
                (base / "model").mkdir(parents=True, exist_ok=True)
                (base / "model" / name).write_text('{"model_dim": 4, "layers": [1, 2]}')
            made = []
            for name in "one", "two":
                case = Files(base, 3, "model/config.json by generate").make(7, Path(scratch) / name)
                path = Path(scratch) / name / "model/config.json"
                made.append((case.what, path.read_bytes() if path.is_file() else None))
            self.assertEqual(made[0], made[1])

    def test_reads_by_every_command(self):
        readers = all_readers()
        self.assertEqual({reader.command[0] for reader in readers},
                         {"average", "generate", "info", "bench", "convert", "convert-adapter", "finetune",
                          "fuse", "plot", "pretrain", "quantize", "score", "evaluate", "tokenizer", "pull",
                          "models"})
        for reader in readers:
            self.assertIn(reader.form, damage.FORMS)
            self.assertTrue(reader.file.split("/")[0] in reader.inputs, reader.name)


class Run(unittest.TestCase):
    def test_reports_the_signal(self):
        with tempfile.TemporaryDirectory() as folder:
            result = process.run(["sh", "-c", "kill -TERM $$"], folder, f"{folder}/streams")
        self.assertEqual((result.code, result.signal), (None, signal.SIGTERM))


if __name__ == "__main__":
    unittest.main()
