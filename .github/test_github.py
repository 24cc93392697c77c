"""Tests of this folder: the scripts of the workflows, and rules for workflows that actionlint does not have."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("CI", "GITHUB_ACTIONS", "FEATURES", "MLX_FROM_SOURCE", "RUSTUP_TOOLCHAIN")}


class Scripts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        shutil.copytree(HERE, self.root / ".github")

    def run_script(self, name, *words, **more):
        return subprocess.run([self.root / ".github" / name, *words], env={**ENVIRONMENT, **more}, capture_output=True, text=True)

    def test_run_step_keeps_the_output(self):
        said = self.run_script("run-step.sh", "greet", "echo", "good day")
        self.assertEqual((said.returncode, said.stdout, said.stderr), (0, "good day\n", ""))
        self.assertEqual((self.root / "out/ci/greet.log").read_text(), "good day\n")

    def test_run_step_ends_with_how_to_repeat_a_failure(self):
        words = ("tests", "bash", "-c", "echo 1 of 2; echo 100% >&2; exit 3")
        said = self.run_script("run-step.sh", *words, FEATURES="--no-default-features")
        self.assertEqual(said.returncode, 3)
        line = said.stdout.splitlines()[-1]
        self.assertRegex(line, r"^tests failed with status 3 on \w+ \w+; repeat it in a clone: FEATURES=--no-default-features bash -c ")
        self.assertEqual(subprocess.run(["bash", "-c", line.split("clone: ")[1]], capture_output=True).returncode, 3)
        summary = self.root / "summary"
        said = self.run_script("run-step.sh", *words, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
        self.assertRegex(said.stdout.splitlines()[-1], r"^::error title=tests::tests failed .*100%25")
        self.assertEqual(summary.read_text().count("\n"), 1)

    def test_lint_without_pip_warns_and_fails_in_ci(self):
        fake = self.root / "bin/python3"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\nexit 1\n")
        fake.chmod(0o755)
        path = f"{fake.parent}:{ENVIRONMENT['PATH']}"
        for ci, status, words in (("", 0, "WARNING: pip could not install"), ("true", 1, "lint-workflows: pip could not install")):
            said = self.run_script("lint.sh", PATH=path, CI=ci)
            self.assertEqual(said.returncode, status)
            self.assertIn(words, said.stderr)
            self.assertEqual(said.stderr.count("\n"), 1, said.stderr)


class Workflows(unittest.TestCase):
    def setUp(self):
        self.workflows = {path.name: path.read_text() for path in (HERE / "workflows").glob("*.yml")}
        self.assertTrue(self.workflows)

    def test_actions_are_pinned_by_commit_with_their_version(self):
        for name, text in self.workflows.items():
            for used in re.findall(r"uses: (.*)", text):
                self.assertRegex(used, r"^(\./\.github/workflows/[a-z]+\.yml|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+)$", name)

    def test_permissions_are_least(self):
        for name, text in self.workflows.items():
            self.assertIn("\npermissions:\n  contents: read\n\n", text, name)
            self.assertEqual("write" in re.sub("#.*", "", text), name == "release.yml", name)
            for step in re.findall(r"uses: actions/checkout@.*\n(?:          .*\n|        .*\n)*", text):
                # Only the draft pushes.
                self.assertTrue("persist-credentials: false" in step or name == "release.yml", name)

    def test_every_job_has_a_timeout(self):
        for name, text in self.workflows.items():
            for job in re.split(r"\n  (?=[a-z]+:\n    )", text.partition("\njobs:")[2])[1:]:
                self.assertTrue("timeout-minutes:" in job or "uses: ./" in job, f"{name}: {job[:40]}")

    def test_steps_run_targets_and_scripts_that_exist(self):
        makefile = (ROOT / "Makefile").read_text()
        for name, text in self.workflows.items():
            for command in re.findall(r"run: (?:>-\n *)?(.*)", text):
                if command.startswith("git config"):
                    continue
                words = re.match(r"\.github/run-step\.sh ([a-z-]+) (.*)", command)
                self.assertTrue(words, f"{name}: {command}")
                target = re.search(r"(?:^|SANITIZE=1 )make ([a-z-]+)", words[2])
                if target:
                    self.assertIn(f"\n{target[1]}:", makefile, name)
                script = re.match(r"[\w.]+/[\w/.-]+", words[2])
                if script:
                    self.assertTrue(os.access(ROOT / script[0], os.X_OK), script[0])


class Documents(unittest.TestCase):
    # CONTRIBUTING.md and ARCHITECTURE.md shorten these.
    SHORT = {"core/": "openelm-core/src/", "cli/": "openelm-cli/src/", "ffi/": "openelm-ffi/src/", "server/": "openelm-server/src/",
             "swift/": "swift/Sources/OpenELM/"}

    def test_files_that_are_named_exist(self):
        for document in ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "STYLE.md"):
            text = (ROOT / document).read_text()
            for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[A-Z]\w+\.md)`", text):
                short = next((name.replace(key, full, 1) for key, full in self.SHORT.items() if name.startswith(key)), name)
                # Later, by another change; made by a build; in swift/.
                made = name in ("docs/platforms.md", "API.md") or name.startswith(("out/", "release/VERSION"))
                self.assertTrue(made or (ROOT / name).exists() or (ROOT / short).exists(), f"{document}: {name}")

    def test_targets_that_are_named_exist(self):
        makefile = (ROOT / "Makefile").read_text()
        for document in ("CONTRIBUTING.md", "RELEASING.md"):
            for targets in re.findall(r"(?:^|[`=]\S* )make ([a-z][a-z -]*)(?:`|  | *#|$)", (ROOT / document).read_text(), re.M) + re.findall(r"`make ([a-z -]+)", (ROOT / document).read_text()):
                for target in targets.split():
                    self.assertIn(f"\n{target}:", makefile, f"{document}: make {target}")


if __name__ == "__main__":
    unittest.main()
