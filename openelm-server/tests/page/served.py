"""Pages of `openelm serve` with the bundled model, for the tests of this folder."""

import functools
import json
import os
import subprocess
import sys
import unittest
import urllib.request
from pathlib import Path

import browser

ROOT = Path(__file__).resolve().parents[3]
TOOL = os.environ.get("OPENELM_TOOL", str(ROOT / "target/debug/openelm"))
MODEL = str(ROOT / "examples/tales")


class Server:
    """A server on a free port."""

    def __init__(self, *options):
        command = [TOOL, "serve", "--model", MODEL, "--port", "0", "--log-level", "off", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # Warnings come before the address.
        lines = []
        while " at http://" not in (line := self.process.stderr.readline()):
            if not line:
                raise RuntimeError("".join(lines))
            lines.append(line)
        self.url = line.strip().rpartition(" at ")[2]

    def text(self, path, body=None):
        """The body of a response."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data) as response:
            return response.read().decode()

    def choice(self, path, **body):
        """The choice of a response with one."""
        return json.loads(self.text(path, body))["choices"][0]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@functools.cache
def installed_browser():
    """The path of a browser. None is a warning on a developer's machine and an error in CI, as for every check."""
    program = browser.find()
    if program is None:
        print("tests/page: WARNING: no Chromium is installed: the page was not tested in a browser", file=sys.stderr)
    return program


class Case(unittest.TestCase):
    """A test with pages. It fails if a page has an error, a warning or a violation of its policy."""

    @classmethod
    def setUpClass(cls):
        program = installed_browser()
        if program is None:
            if os.environ.get("CI") == "true":
                raise RuntimeError("Chromium is not installed")
            raise unittest.SkipTest("no Chromium is installed")
        cls.browser = browser.Browser(program)
        cls.addClassCleanup(cls.browser.close)

    def serve(self, *options):
        server = Server(*options)
        self.addCleanup(server.close)
        return server

    def open(self, server, ready="document.getElementById('model').value !== ''", **page):
        """A page that is ready."""
        page = self.browser.page(**page)
        self.addCleanup(page.close)
        self.addCleanup(lambda: self.assertEqual(page.problems, []))
        page.open(server.url + "/")
        page.wait(ready)
        return page

    def send(self, page, text, key="Enter"):
        """Sends a prompt by the keyboard."""
        page.run("document.getElementById('prompt').focus(); document.getElementById('prompt').select()")
        page.type(text)
        page.key(key)

    def answer(self, page, number=1):
        """The shown text of the last answer, once there are `number` and all have ended."""
        visible = "document.querySelectorAll('.transcript:not([hidden]) .answer')"
        page.wait(f"{visible}.length === {number} && [...{visible}].every(a => a.getAttribute('aria-busy') === 'false')")
        return page.run(f"{visible}[{number - 1}].querySelector('.text').textContent")

    def mode(self, page, name):
        page.run(f"document.querySelector('[name=mode][value={name}]').click()")

    def set(self, page, option, value):
        """Types the value of an option."""
        page.run(f"document.getElementById('{option}').focus(); document.getElementById('{option}').select()")
        page.type(str(value))

    def expect_problems(self, page, *parts):
        """Removes the problems that are expected, and checks that there were no others."""
        self.assertEqual(len(page.problems), len(parts), page.problems)
        for problem, part in zip(page.problems, parts):
            self.assertIn(part, problem)
        page.problems.clear()

    def bodies(self, page):
        """The bodies of the requests so far."""
        return [json.loads(body) for _, body in page.requests if body]
