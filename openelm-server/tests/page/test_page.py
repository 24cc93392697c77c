"""The page of `openelm serve` in a browser: texts, chat, probabilities, keys and errors."""

import json
import math
import subprocess
import tempfile
import unittest
from pathlib import Path

from served import MODEL, ROOT, TOOL, Case

ERROR = "document.querySelector('.answer:last-child .error').textContent"
COUNTS = "document.querySelector('.answer:last-child .counts').textContent"
HTML = "<img src=x onerror=\"hit=1\"><script>hit=1</script>&lt;b&gt; é€😀"


class Texts(Case):
    def test_a_base_model_opens_for_completions_and_an_instruct_model_for_chat(self):
        for template, mode in (("plain", "completion"), ("openelm-instruct", "chat"), ("instruction", "chat")):
            server = self.serve("--chat-template", template, "--temp", "0.7", "-n", "12")
            page = self.open(server)
            self.assertEqual(page.run("document.querySelector('[name=mode]:checked').value"), mode)
            for name in ("chat", "completion"):
                self.assertEqual(page.run(f"document.getElementById('{name}').hidden"), name != mode)
            self.assertEqual(page.run("document.getElementById('model-name').textContent"), "tales")
            self.assertEqual(page.run("document.activeElement.id"), "prompt")
            options = {name: page.run(f"document.getElementById('{name}').placeholder") for name in ("temperature", "max_tokens", "seed")}
            self.assertEqual(options, {"temperature": "0.7", "max_tokens": "12", "seed": "random"})
            self.assertTrue(all(url.startswith(server.url) for url, _ in page.requests), page.requests)

    def test_a_streamed_text_is_the_texts_of_the_api(self):
        server = self.serve("-n", "40")
        page = self.open(server)
        self.set(page, "repetition_penalty", "1.2")
        self.send(page, "Once upon a time")
        text = self.answer(page)
        fields = {"model": "tales", "prompt": "Once upon a time", "repetition_penalty": 1.2}
        self.assertEqual(text, fields["prompt"] + server.choice("/v1/completions", **fields)["text"])
        sent = {**fields, "logprobs": 5, "stream": True, "stream_options": {"include_usage": True}}
        self.assertEqual(self.bodies(page), [sent])
        self.assertRegex(page.run(COUNTS), r"^40 tokens · [\d.]+ tokens per second · prompt: 5 tokens, \d cached · limit of tokens reached$|"
                                           r"^40 tokens · [\d.]+ tokens per second · prompt: 5 tokens · limit of tokens reached$")
        self.assertEqual("".join(page.run("[...document.querySelectorAll('#live-region p')].map(line => line.textContent)")),
                         text.removeprefix(fields["prompt"]))
        page.run("document.querySelector('.answer button').click()")
        page.wait("document.querySelector('#live-region p:last-child').textContent === 'Copied'")
        self.assertEqual(page.run("navigator.clipboard.readText()"), text)
        # Every option, without probabilities.
        options = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "max_tokens": 7, "seed": 9007199254740991}
        for option, value in options.items():
            self.set(page, option, value)
        page.run("document.getElementById('probabilities').click()")
        self.send(page, "Once")
        text = self.answer(page, 2)
        fields = {"model": "tales", "prompt": "Once", **options}
        self.assertEqual(text, "Once" + server.choice("/v1/completions", **fields)["text"])
        self.assertEqual(self.bodies(page)[1], {**fields, "stream": True, "stream_options": {"include_usage": True}})
        self.assertEqual(page.run("document.querySelectorAll('.answer:last-child .token').length"), 0)
        page.run("document.getElementById('clear').click()")
        self.assertEqual(page.run("document.querySelectorAll('.answer').length"), 0)
        self.assertFalse(page.run("document.querySelector('#completion .hint').hidden"))

    def test_escape_and_the_button_stop_a_text(self):
        server = self.serve("-n", "400", "--min-tokens", "400")
        page = self.open(server)
        for number, stop in enumerate((lambda: page.key("Escape"), lambda: page.point("#send", click=True)), 1):
            self.send(page, "Once upon a time")
            page.wait("document.querySelectorAll('.answer:last-child .token').length > 2")
            self.assertEqual(page.run("document.getElementById('send').getAttribute('aria-label')"), "Stop")
            stop()
            text = self.answer(page, number)
            self.assertRegex(page.run(COUNTS), r"^\d+ tokens · ([\d.]+ tokens per second · )?stopped$")
            self.assertEqual(page.run("document.getElementById('send').getAttribute('aria-label')"), "Send")
            self.assertEqual(page.run("document.querySelector('#live-region p:last-child').textContent"), "Stopped")
            # The server has ended it too.
            while "openelm_generations 0\n" not in (metrics := server.text("/metrics")):
                pass
            self.assertIn(f'openelm_requests_total{{path="/v1/completions",status="499"}} {number}\n', metrics)
            self.assertEqual(self.answer(page, number), text)

    def test_chat_has_the_earlier_turns(self):
        server = self.serve("-n", "12", "--chat-template", "openelm-instruct")
        page = self.open(server)
        page.run("document.getElementById('system').focus()")
        page.type("Be kind.")
        self.send(page, "Who are you?")
        self.answer(page)
        self.assertEqual(page.run("document.getElementById('prompt').value"), "")
        self.send(page, "And who am I?")
        shown = self.answer(page, 2)
        first, second = (body["messages"] for body in self.bodies(page))
        message = lambda role, content: {"role": role, "content": content}
        self.assertEqual(first, [message("system", "Be kind."), message("user", "Who are you?")])
        answer = server.choice("/v1/chat/completions", messages=first)["message"]["content"]
        self.assertEqual(second, [*first, message("assistant", answer), message("user", "And who am I?")])
        answer = server.choice("/v1/chat/completions", messages=second)["message"]["content"]
        # Spaces at the begin of an answer are not shown.
        self.assertEqual(shown, answer.lstrip())
        self.assertEqual(page.run("[...document.querySelectorAll('.message')].map(m => m.textContent)"), ["Who are you?", "And who am I?"])
        # Each mode keeps its texts and its draft.
        page.type("draft")
        self.mode(page, "completion")
        self.assertEqual(page.run("document.getElementById('prompt').value"), "")
        self.send(page, "Once")
        self.answer(page)
        self.mode(page, "chat")
        self.assertEqual(page.run("document.getElementById('prompt').value"), "draft")
        self.assertEqual(self.answer(page, 2), shown)

    def test_text_is_never_html(self):
        server = self.serve("--forced-prefix", HTML, "-n", "80")
        page = self.open(server)
        for number, mode in enumerate(("completion", "chat"), 1):
            self.mode(page, mode)
            self.send(page, HTML)
            text = self.answer(page)
            self.assertTrue(text.startswith(HTML if mode == "chat" else HTML + HTML), text)
            for index in range(page.run(f"document.querySelectorAll('#{mode} .token').length")):
                page.run(f"document.querySelectorAll('#{mode} .token')[{index}].focus()")
                self.assertFalse(page.run("document.getElementById('probabilities-of-token').hidden"))
        self.assertEqual(page.run("[document.querySelectorAll('main img, .tooltip img').length, document.scripts.length, typeof hit]"), [0, 1, "undefined"])
        # The browser itself refuses HTML from strings, and code from elsewhere.
        for code in ("document.body.innerHTML = '<p>'", "document.head.append(Object.assign(document.createElement('script'), {text: 'hit=1'}))"):
            with self.assertRaisesRegex(RuntimeError, "TrustedHTML|TrustedScript"):
                page.run(code)
        page.run("document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.invalid/x.png'}))")
        page.wait("document.images[document.images.length - 1].complete")
        self.assertTrue(page.problems and all("Content Security Policy" in problem or "Trusted" in problem for problem in page.problems), page.problems)
        page.problems.clear()

    def test_an_event_stream_may_be_cut_anywhere(self):
        page = self.open(self.serve())
        stream = "\ufeffdata: {\"a\": \"é€😀\"}\r\n\r\n: note\n\nid: 1\ndata: b\rdata:c\r\rdata: f\r\ndata: g\r\n\r\ndata\n\nevent: x\r\n\r\ndata:  d: e\n\ndata: lost"
        expected = ["{\"a\": \"é€😀\"}", "b\nc", "f\ng", "", " d: e"]
        found = page.run("""import('/page/event_stream.js').then(({ EventStreamParser }) => {
            const bytes = new TextEncoder().encode(%s);
            const events = (parts) => { const parser = new EventStreamParser(); return parts.flatMap((part) => parser.push(part)); };
            const cuts = [...bytes.keys()].map((cut) => events([bytes.subarray(0, cut), bytes.subarray(cut)]));
            return [...cuts, events([...bytes].map((byte) => Uint8Array.of(byte)))];
        })""" % json.dumps(stream))
        self.assertEqual(len(found), len(stream.encode()) + 1)
        for events in found:
            self.assertEqual(events, expected)


class Probabilities(Case):
    def rows(self, page):
        return page.run("[...document.querySelectorAll('.tooltip tr')].map(row => [row.className, row.cells[0].textContent, row.cells[2].textContent])")

    def expected(self, token, own, top):
        """The rows of a token."""
        top = {token: own, **top}
        rows = sorted(top.items(), key=lambda pair: -pair[1])
        visible = lambda text: text.replace("\n", "⏎") if text.strip(" ") == text else "␣" + text[1:]
        percent = lambda value: "< 0.1 %" if value < 0.1 else f"{math.floor(value * 10 + 0.5) / 10:.1f} %"
        return [["own" if text == token else "", visible(text), percent(100 * math.exp(logprob))] for text, logprob in rows]

    def test_the_pointer_and_the_focus_show_them(self):
        server = self.serve("-n", "8", "--seed", "3", "--temp", "1.5")
        page = self.open(server)
        self.send(page, "Once upon a time")
        self.answer(page)
        logprobs = server.choice("/v1/completions", prompt="Once upon a time", logprobs=5)["logprobs"]
        tokens = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]))
        tooltip = "document.getElementById('probabilities-of-token')"
        self.assertTrue(page.run(f"{tooltip}.hidden"))
        # The prompt is the first child.
        page.point(".token:nth-of-type(3)")
        page.wait(f"!{tooltip}.hidden")
        self.assertEqual(self.rows(page), self.expected(*tokens[1]))
        # It stays under the pointer.
        page.point(".tooltip tr:nth-of-type(2)")
        page.run("new Promise(resolve => setTimeout(resolve, 300))")
        self.assertFalse(page.run(f"{tooltip}.hidden"))
        page.point("header h1")
        page.wait(f"{tooltip}.hidden")
        # One token is in the tab order; arrow keys reach the others.
        self.assertEqual(page.run("document.querySelectorAll('.token[tabindex=\"0\"]').length"), 1)
        page.run("document.querySelector('.token[tabindex=\"0\"]').focus()")
        for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(tokens) - 1), ("ArrowRight", len(tokens) - 1), ("Home", 0)):
            page.key(key)
            self.assertEqual(self.rows(page), self.expected(*tokens[index]), key)
            self.assertEqual(page.run("document.activeElement.getAttribute('aria-describedby')"), "probabilities-of-token")
        page.key("Escape")
        self.assertTrue(page.run(f"{tooltip}.hidden"))

    def test_chat_has_them_too(self):
        server = self.serve("-n", "6", "--seed", "3", "--temp", "1.5", "--chat-template", "openelm-instruct")
        page = self.open(server)
        self.send(page, "Who are you?")
        self.answer(page)
        messages = [{"role": "user", "content": "Who are you?"}]
        content = server.choice("/v1/chat/completions", messages=messages, logprobs=True, top_logprobs=5)["logprobs"]["content"]
        page.run("document.querySelector('.token').focus()")
        for token in content:
            top = {other["token"]: other["logprob"] for other in token["top_logprobs"]}
            self.assertEqual(self.rows(page), self.expected(token["token"], token["logprob"], top))
            page.key("ArrowRight")


class KeysAndErrors(Case):
    def test_a_key_is_requested_and_kept_for_the_tab(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        keys = Path(folder.name) / "keys"
        keys.write_text("sesame\n")
        server = self.serve("--api-key-file", str(keys), "-n", "4")
        dialog = "document.getElementById('key-dialog').open"
        page = self.open(server, ready=dialog)
        self.assertEqual(page.run("document.activeElement.id"), "key")
        for key in ("wrong", "☃"):
            page.type(key)
            page.key("Enter")
            page.wait("!document.getElementById('key-error').hidden && document.activeElement.selectionEnd > 0")
        self.assertEqual(page.run("document.getElementById('key-error').textContent"), "A key has only characters of ISO 8859-1.")
        # Without a key, the page is usable later.
        page.key("Escape")
        page.wait(f"!{dialog} && !document.getElementById('start-error').hidden")
        self.assertIn("Authorization: Bearer KEY", page.run("document.getElementById('start-error').textContent"))
        self.send(page, "Once")
        page.wait(dialog)
        page.type("sesame")
        page.key("Enter")
        page.wait(f"!{dialog} && document.getElementById('model').value === 'tales'")
        self.assertTrue(page.run("document.getElementById('start-error').hidden"))
        page.key("Enter")
        self.answer(page)
        self.assertEqual(page.run("[Object.values(sessionStorage), localStorage.length, document.cookie]"), [["sesame"], 0, ""])
        self.expect_problems(page, *["401"] * 2)
        page.call("Page.reload")
        page.wait("document.getElementById('model')?.value === 'tales'")
        other = self.open(server, ready=dialog)
        self.expect_problems(other, "401")

    def test_errors_of_the_server_are_shown_as_they_are(self):
        server = self.serve("--chat-template", "openelm-instruct", "-n", "400", "--min-tokens", "400")
        page = self.open(server)
        self.set(page, "top_p", "1.5")
        self.send(page, "Who are you?")
        self.answer(page)
        self.assertEqual(page.run(ERROR), "top_p: expected a number in (0, 1], found 1.5")
        self.assertEqual(page.run("document.querySelector('[aria-invalid]').id"), "top_p")
        # The message is not lost, and no part of the conversation.
        self.assertEqual(page.run("document.getElementById('prompt').value"), "Who are you?")
        self.set(page, "top_p", "0.5")
        self.assertEqual(page.run("document.querySelectorAll('[aria-invalid]').length"), 0)
        self.send(page, "Hello")
        page.wait("document.querySelectorAll('.answer:last-child .token').length > 2")
        self.assertEqual(self.bodies(page)[1]["messages"], [{"role": "user", "content": "Hello"}])
        self.expect_problems(page, "400")
        server.close()
        self.answer(page, 2)
        self.assertIn(page.run(ERROR), ("The server cannot be reached.", "The connection has ended before the text."))
        self.send(page, "Hello")
        self.answer(page, 3)
        self.assertEqual(page.run(ERROR), "The server cannot be reached.")
        self.assertTrue(all("ERR_" in problem for problem in page.problems), page.problems)
        page.problems.clear()

    def test_a_number_that_is_none_is_not_sent(self):
        page = self.open(self.serve())
        self.set(page, "top_k", "1.5")
        self.send(page, "Once")
        self.assertEqual(page.run("document.activeElement.id"), "top_k")
        self.assertEqual((self.bodies(page), page.run("document.querySelectorAll('.answer').length")), ([], 0))

    def test_an_adapter_can_be_selected(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        adapter = Path(folder.name) / "adapter"
        subprocess.run([TOOL, "finetune", "--model", MODEL, "--data", str(ROOT / "examples/data/tales"), "--iters", "1",
                        "--adapter-path", str(adapter), "--quiet"], check=True, stdout=subprocess.DEVNULL)
        server = self.serve("--adapter", f"stories={adapter}", "-n", "4")
        page = self.open(server)
        self.assertEqual(page.run("[...document.getElementById('model').options].map(option => option.value)"), ["tales", "stories"])
        for number, name in enumerate(("tales", "stories"), 1):
            page.run(f"document.getElementById('model').value = '{name}'")
            self.send(page, "Once")
            self.answer(page, number)
        self.assertEqual([body["model"] for body in self.bodies(page)], ["tales", "stories"])


if __name__ == "__main__":
    unittest.main()
