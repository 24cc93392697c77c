"""Tests of apple/ios.sh and apple/chat-simulator.sh on any system, in a copy with stand-ins for Xcode."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEVICES = """{"devices": {
  "com.apple.CoreSimulator.SimRuntime.iOS-18-5": [{"name": "iPhone 16", "udid": "OLD"}, {"name": "iPad Air", "udid": "PAD"}],
  "com.apple.CoreSimulator.SimRuntime.iOS-26-2": [{"name": "iPhone 17", "udid": "NEW"}],
  "com.apple.CoreSimulator.SimRuntime.watchOS-26-2": [{"name": "iPhone-like watch", "udid": "WATCH"}]}}"""
NAMES = sorted(f"{name}.png" for name in ("conversation", "models", "training", "settings", "dark", "large-text"))
FAKES = {
    "uname": "echo Darwin",
    "sleep": ":",
    "xcodebuild": '[ -z "$BROKEN" ] || { echo "error: no such module"; exit 65; }',
    "xcrun": """case "$*" in
  *list\\ devices*) echo "$DEVICES" ;;
  *screenshot*) touch "${@: -1}" ;;
  *launchctl*) [ -n "$ENDED" ] || echo "1 0 UIKitApplication:org.openelm.chat[1]" ;;
esac""",
}


class Simulated(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve() / "copy"
        self.kernels = self.root / "swift/Sources/OpenELM/Resources/Kernels"
        for name in ("apple", "bin", "out/xcframework/COpenELMFFI.xcframework", "out/xcframework/kernels"):
            (self.root / name).mkdir(parents=True)
        self.kernels.mkdir(parents=True)
        (self.root / "out/xcframework/kernels/mlx-0.32.2-ios.metallib").touch()
        for name in ("ios.sh", "chat-simulator.sh"):
            shutil.copy(ROOT / "apple" / name, self.root / "apple")
        for name, code in FAKES.items():
            path = self.root / "bin" / name
            path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$CALLS"\n{code}\n')
            path.chmod(0o755)

    def run_script(self, name, **more):
        environment = {**os.environ, "BROKEN": "", "ENDED": "", "DEVICES": DEVICES, "CALLS": str(self.root / "calls"),
                       "PATH": f"{self.root}/bin:{os.environ['PATH']}", **more}
        (self.root / "calls").write_text("")
        said = subprocess.run([self.root / "apple" / name], env=environment, capture_output=True, text=True)
        return said, (self.root / "calls").read_text().splitlines()

    def test_the_package_is_built_for_both(self):
        said, calls = self.run_script("ios.sh", OPENELM_LIBRARY_DIR="/elsewhere")
        self.assertEqual(said.returncode, 0, said.stderr)
        builds = [call for call in calls if call.startswith("xcodebuild build -scheme OpenELM ")]
        self.assertEqual([call.split("platform=")[1].split(" -")[0] for call in builds], ["iOS", "iOS Simulator"])
        self.assertEqual([path.name for path in self.kernels.iterdir()], ["mlx-0.32.2-ios.metallib"])
        said, _ = self.run_script("ios.sh", BROKEN="1")
        self.assertEqual((said.returncode, said.stdout), (1, "error: no such module\n"))
        self.assertEqual(said.stderr.splitlines()[-1], "ios: building for iOS failed; the whole log is out/ios/iOS.log")

    def test_the_app_runs_on_the_newest_iphone(self):
        said, calls = self.run_script("chat-simulator.sh")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertEqual(sorted(path.name for path in (self.root / "out/chat").glob("*.png")), NAMES)
        launches = [call.partition(" org.openelm.chat ")[2] for call in calls if call.startswith("xcrun simctl launch ")]
        self.assertEqual(launches, ["--ask Once upon a time", "--show models", "--show training", "--show settings", "--ask Once upon a time"])
        self.assertTrue(all(" NEW" in call for call in calls if call.startswith("xcrun simctl") and "list devices" not in call), calls)
        self.assertEqual(calls[-1], "xcrun simctl shutdown NEW")

    def test_an_app_that_ends_and_a_missing_phone_are_errors(self):
        said, calls = self.run_script("chat-simulator.sh", ENDED="1")
        self.assertEqual(said.returncode, 1)
        self.assertIn("the app has ended by the screenshot conversation", said.stderr)
        self.assertEqual(calls[-1], "xcrun simctl shutdown NEW")
        said, _ = self.run_script("chat-simulator.sh", DEVICES='{"devices": {}}')
        self.assertIn("Xcode has no simulated iPhone", said.stderr)

    def test_what_is_missing_is_named(self):
        shutil.rmtree(self.root / "out/xcframework")
        for name in ("ios.sh", "chat-simulator.sh"):
            self.assertIn("out/xcframework is missing; run make xcframework", self.run_script(name)[0].stderr)
            if os.uname().sysname != "Darwin":
                said = subprocess.run([self.root / "apple" / name], capture_output=True, text=True)
                self.assertEqual((said.returncode, said.stderr.count("\n")), (1, 1))
                self.assertIn("this needs Xcode on a Mac, and this is Linux", said.stderr)


if __name__ == "__main__":
    unittest.main()
