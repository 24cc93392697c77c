"""Tests of `make mac` with programs that stand in for make, openelm and mlx-lm."""

import contextlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import facts
import measure
import processes
import report

HERE = Path(__file__).resolve().parent
specification = importlib.util.spec_from_file_location("program", HERE / "__main__.py")
program = importlib.util.module_from_spec(specification)
specification.loader.exec_module(program)

LINUX = {"system": "Linux x86_64"}
MAC = {"system": "Darwin arm64", "chip": "Apple M4 Pro", "macos": "26.1", "memory_bytes": 24 * 2**30}
# Writes what an mlx_lm_job.py or an `openelm bench` prints, or fails.
TOOL = """#!/bin/sh
case "$1 $*" in
  *--dtype*bfloat16*--json*) echo "no kernel" >&2; exit 1 ;;
  bench*) echo '{"device": "gpu", "load_seconds": 0.5, "peak_bytes": 3000000,
    "runs": [{"prompt_tokens": 128, "prefill_tokens_per_second": 300, "decode_tokens_per_second": 90}]}' ;;
  convert*) mkdir "$3" && cp "$2/config.json" "$3" ;;
  *) exit 1 ;;
esac
"""


def job(prefill, decode, **more):
    run = {"prompt_tokens": 128, "prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode}
    return {"load_seconds": 1.0, "runs": [run], **more}


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.log = open(self.folder / "log", "wb", buffering=0)
        self.addCleanup(self.log.close)

    def program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def logged(self):
        return (self.folder / "log").read_text()


class Programs(InFolder):
    def test_a_program_that_fails_hangs_or_is_missing_has_a_status(self):
        self.assertEqual(processes.run(["sh", "-c", "echo out; echo err >&2; exit 3"], self.log), 3)
        self.assertEqual(processes.run(["sleep", "60"], self.log, limit=0.1), 124)
        self.assertEqual(processes.run([self.folder / "missing"], self.log), 127)
        for words in ("out\nerr\n", "ended after 0.1 s", "No such file"):
            self.assertIn(words, self.logged())

    def test_a_result_that_is_no_json_is_a_failure(self):
        self.assertEqual(processes.read_json(["echo", '{"a": 1}'], self.log), {"a": 1})
        for command, words in ((["echo", "loading"], "expected a JSON object"), (["false"], "status 1")):
            with self.assertRaisesRegex(processes.Failed, words):
                processes.read_json(command, self.log)


class Facts(unittest.TestCase):
    def test_reads_the_output_of_the_tools_of_macos(self):
        displays = '{, "SPDisplaysDataType" : [, {, "sppci_cores" : "16",, "spdisplays_vendor" : "sppci_vendor_Apple", }'
        self.assertEqual((facts.gpu_cores(displays), facts.gpu_cores(None)), (16, None))
        self.assertEqual([facts.low_power(text) for text in (" lowpowermode         1, sleep 1", " lowpowermode 0", "", None)], [True, False, None, None])
        self.assertEqual((facts.number("25769803776"), facts.number("sysctl: unknown"), facts.number(None)), (25769803776, None, None))

    def test_a_missing_or_failing_tool_is_no_fact(self):
        self.assertIsNone(processes.first_lines(["no-such-tool-of-macos"]))
        self.assertIsNone(processes.first_lines(["false"]))
        self.assertEqual(processes.first_lines(["printf", "Xcode 26.1\nBuild 17B55\nmore"], 2), "Xcode 26.1, Build 17B55")

    def test_each_system_has_its_facts(self):
        for collect in (facts.of_macos, facts.of_linux):
            self.assertIn("memory_bytes", collect())
        found = facts.collect(HERE.parent.parent)
        self.assertTrue({"date", "system", "python"} <= set(found), found)


class Measurements(InFolder):
    def settings(self, tool=TOOL, oracle=0):
        (self.folder / "config.json").write_text('{"max_context_length": 512}')
        self.program("parity/setup.sh", f"#!/bin/sh\nexit {oracle}\n")
        self.program("bench/mlx_lm_job.py", f"print('''{json.dumps(job(150, 60, peak_bytes=6000000))}''')")
        return {"root": self.folder, "out": self.folder, "rounds": 2, "model": self.folder, "openelm": self.program("openelm", tool)}

    def test_a_failed_job_does_not_stop_the_others(self):
        found, problems = measure.speed(self.settings(), self.log)
        jobs = {dtype: {tool: len(runs) for tool, runs in tools.items()} for dtype, tools in found["dtypes"].items()}
        self.assertEqual(jobs, {"bfloat16": {"openelm": 0, "mlx_lm": 2}, "float32": {"openelm": 2, "mlx_lm": 2}})
        self.assertEqual(problems, ["openelm, bfloat16: openelm bench ended with status 1"] * 2)
        self.assertIn("no kernel", self.logged())
        table = report.medians({"speed": found})["speed float32"]
        self.assertEqual(table["ratio"], {"load_seconds": 0.5, "peak_bytes": 0.5, "prefill_tokens_per_second 128": 2, "decode_tokens_per_second 128": 1.5})

    def test_a_missing_tool_is_a_problem(self):
        found, problems = measure.speed(self.settings(oracle=1), self.log)
        self.assertEqual(list(found["dtypes"]["float32"]), ["openelm"])
        self.assertIn("mlx-lm is not installed", problems[0])
        settings = {**self.settings(), "openelm": self.folder / "missing"}
        for measured in (measure.speed, measure.training):
            self.assertIn("missing: run make build", measured(settings, self.log)[1][0])

    def test_reads_the_speeds_of_both_trainers(self):
        # The first two iterations are not counted.
        table = "".join(f"  \x1b[2m{i:>4}\x1b[0m    \x1b[1;32m3.{i}00 ▼\x1b[0m    {speed}      {i}.5k\n" for i, speed in ((1, "  9"), (2, "  9"), (3, "1,024"), (4, "1,024")))
        events = "".join(json.dumps({"event": "step", "targets": 512, "tokens_per_second": speed, "train_loss": 3}) + "\n" for speed in (9, 9, 2048, 2048))
        with mock.patch.object(measure.finetune, "run", side_effect=[(events, 10), (table, 20)]):
            ours = measure.of_training(measure.finetune.ours("", "", "", self.folder, 128))
            theirs = measure.of_training(measure.finetune.theirs("", "", self.folder, 128, ""))
        self.assertEqual(ours, {"tokens_per_second": 2048, "iterations_per_second": 4, "peak_resident_bytes": 10})
        self.assertEqual(theirs, {"tokens_per_second": 1024, "iterations_per_second": 2, "peak_resident_bytes": 20})

    def test_prompts_fit_the_context_and_rows_fill_a_batch(self):
        self.settings()
        self.assertEqual(measure.prompt_lengths(self.folder), [128, 448])
        measure.write_rows(HERE.parent.parent, self.folder / "data")
        text = "".join((self.folder / f"data/{name}.jsonl").read_text() for name in ("train", "valid"))
        rows = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([len(row["text"]) for row in rows], [2000] * 20)


class Reference(unittest.TestCase):
    def test_linux_and_macos_have_the_same_mlx_lm(self):
        parity = HERE.parent.parent / "parity"
        versions = [dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (parity / name).read_text(), re.M)) for name in ("requirements.txt", "requirements-macos.txt")]
        self.assertEqual(versions[0].pop("mlx-cpu"), versions[1].pop("mlx-metal"))
        self.assertEqual(*versions)


class Reports(unittest.TestCase):
    def test_medians_are_of_the_numbers_that_exist(self):
        self.assertEqual((report.middle([3, None, 1, 2]), report.middle([4, 1]), report.middle([None])), (2, 2.5, None))
        found = report.compared({"openelm": [job(3, 1), job(9, 1), job(5, 2)], "mlx_lm": [job(10, 0)]}, report.summary)
        self.assertEqual(found["openelm"]["prefill_tokens_per_second 128"], 5)
        self.assertEqual(found["ratio"], {"load_seconds": 1, "prefill_tokens_per_second 128": 0.5})

    def test_a_tail_has_no_control_sequences_and_no_home(self):
        text = f"first\n{Path.home()}/clone\n\x1b[31mred\x1b[0m\n10 %\r20 %\rdone\n\n"
        self.assertEqual(report.tail(text, 3), ["~/clone", "red", "done"])

    def test_the_first_line_says_whether_it_is_a_mac(self):
        self.assertEqual(report.heading(MAC), "OpenELM on Apple M4 Pro, 24 GiB, macOS 26.1")
        self.assertIn("NO MEASUREMENT OF A MAC", report.heading(LINUX))

    def test_a_failed_step_is_shown_with_its_output(self):
        steps = [
            {"name": "build", "status": "passed", "seconds": 61.0, "log_tail": [f"line {i}" for i in range(9)]},
            {"name": "parity", "status": "failed", "seconds": 2.0, "log_tail": [f"parity {i}" for i in range(9)]},
        ]
        dtypes = {"bfloat16": {"openelm": [job(3, 1.5, active_bytes=2e6)], "mlx_lm": []}}
        results = {"system": MAC, "steps": steps, "speed": {"model": "m", "device": "gpu", "rounds": 3, "dtypes": dtypes}}
        text = report.as_text(results, ["build", "parity", "speed"])
        for pattern in (r"^OpenELM on Apple", r"\nbuild +passed +61\nparity +failed +2\nspeed +not run", r"\nparity 0\n(.*\n)*parity 8\n",
                        r"\nactive, MB +2\.00 +- +-\n", r"\ndevice of openelm +gpu\n", r"\nm in bfloat16 on the gpu"):
            self.assertRegex(text, pattern)
        self.assertNotIn("line 5", text)
        self.assertEqual(json.loads(report.as_json(results))["medians"]["speed bfloat16"]["openelm"]["active_bytes"], 2e6)


class Command(InFolder):
    def run_main(self, steps, make="exit 0", **more):
        self.program("bin/make", f"#!/bin/sh\necho make $*\n{make}\n")
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "MAC_STEPS": steps, "MODEL": "", **more}
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        with mock.patch.dict(os.environ, environment), mock.patch.object(program, "OUT", self.folder / "mac"), \
                contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            program.main()
        return ended.exception.code, said.getvalue()

    def reported(self):
        return json.loads((self.folder / "mac/report.json").read_text())

    def test_a_failed_step_does_not_stop_the_others(self):
        code, said = self.run_main("test-rust parity build", '[ "$1" != test-rust ] || exit 2')
        self.assertEqual(code, 1)
        self.assertIn("failed: test-rust\n", said)
        steps = [(step["name"], step["status"], step["log_tail"]) for step in self.reported()["steps"]]
        expected = [("build", "passed"), ("test-rust", "failed"), ("parity", "passed")]
        self.assertEqual(steps, [(name, status, [f"$ make {name}", f"make {name}"]) for name, status in expected])
        self.assertRegex((self.folder / "mac/report.txt").read_text(), r"\ntest-rust +failed")

    def test_the_exit_code_is_0_if_all_steps_pass(self):
        self.assertEqual(self.run_main("build")[0], 0)

    def test_an_unexpected_error_is_a_failed_step(self):
        with mock.patch.dict(program.MEASUREMENTS, speed=lambda *_: {}["runs"]):
            self.assertEqual(self.run_main("speed build")[0], 1)
        self.assertEqual([step["status"] for step in self.reported()["steps"]], ["passed", "failed"])

    def test_an_interrupted_run_keeps_its_report(self):
        with mock.patch.dict(program.MEASUREMENTS, speed=mock.Mock(side_effect=KeyboardInterrupt)):
            self.assertIn("interrupted", self.run_main("build speed training")[0])
        self.assertEqual([step["status"] for step in self.reported()["steps"]], ["passed", "interrupted"])

    def test_a_signal_ends_the_running_program(self):
        self.check_signal()

    def test_a_signal_ends_a_program_that_just_started(self):
        class Late(subprocess.Popen):
            def __init__(self, *words, **options):
                super().__init__(*words, **options)
                time.sleep(0.5)

        with mock.patch.object(subprocess, "Popen", Late):
            self.check_signal()

    def check_signal(self):
        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        self.assertIn("interrupted", self.run_main("build", "echo $$ >pid; kill -TERM $PPID; exec sleep 60".replace("pid", f"{self.folder}/pid"))[0])
        self.assertEqual(self.reported()["steps"][0]["status"], "interrupted")
        with self.assertRaises(ProcessLookupError):
            os.kill(int((self.folder / "pid").read_text()), 0)

    def test_rejects_unknown_steps_rounds_and_models(self):
        for more, words in (({"steps": "build sped"}, "MAC_STEPS: .* found sped"), ({"steps": "", "MAC_ROUNDS": "0"}, "MAC_ROUNDS"),
                            ({"steps": "", "MODEL": "/nowhere"}, "MODEL: /nowhere/config.json is missing")):
            self.assertRegex(self.run_main(**more)[0], words)
        self.assertFalse((self.folder / "mac").exists())

    def test_steps_are_targets_of_the_makefile(self):
        makefile = (HERE.parent.parent / "Makefile").read_text()
        for name in (*program.TARGETS, "mac"):
            self.assertIn(f"\n{name}:", makefile)


if __name__ == "__main__":
    unittest.main()
