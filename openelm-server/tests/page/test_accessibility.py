"""The page of `openelm serve` for all users: keyboard, names, contrast, narrow windows and motion."""

import unittest

from served import Case

# The smallest contrast of texts with their backgrounds (WCAG 2.2, 1.4.3), with the text that has it.
CONTRAST = """(() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => numbers(color).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const background = (element) => {
    const own = getComputedStyle(element).backgroundColor;
    const alpha = numbers(own)[3] ?? 1;
    return alpha === 1 ? own : background(element.parentElement);
  };
  const contrast = (color, element) => {
    const [dark, light] = [luminance(color), luminance(background(element))].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    if (!element.checkVisibility() || element.closest('.visually-hidden')) continue;
    if (hasText) found.push([contrast(getComputedStyle(element).color, element), element.textContent]);
    if (element.placeholder) found.push([contrast(getComputedStyle(element, '::placeholder').color, element), element.placeholder]);
    if (element.matches('#send')) found.push([contrast(getComputedStyle(element).color, element), 'send']);
  }
  return [found.length, ...found.sort((a, b) => a[0] - b[0])[0]];
})()"""
# True if the focused element, or the part that stands for it, has an outline or a ring.
HAS_RING = """(() => {
  const element = document.activeElement;
  const parts = [element, element.nextElementSibling, element.closest('.field')].filter(Boolean);
  return parts.some((part) => {
    const style = getComputedStyle(part);
    return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) || style.boxShadow.includes('1px');
  });
})()"""
NAME = "(document.activeElement.id || document.activeElement.className || document.activeElement.tagName)"


class Accessibility(Case):
    def test_the_keyboard_is_enough(self):
        server = self.serve("-n", "12")
        page = self.open(server)
        page.type("Once upon")
        page.key("Enter", shift=True)
        page.type("a time")
        page.key("Enter")
        self.assertTrue(self.answer(page).startswith("Once upon\na time"))
        visited = []
        for _ in range(40):
            page.key("Tab")
            name = page.run(NAME)
            if name == "prompt":
                break
            if name != "BODY":
                self.assertTrue(page.run(HAS_RING), name)
            visited.append(name)
        order = ["send", "clear", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed", "probabilities",
                 "plain", "mode", "token shown", "plain"]
        visited = ["mode" if name == "INPUT" else name for name in visited if name != "BODY"]
        self.assertEqual(visited, order)
        # Space switches, an arrow key selects the mode.
        page.run("document.getElementById('seed').focus()")
        page.key("Tab")
        page.key(" ")
        self.assertFalse(page.run("document.getElementById('probabilities').checked"))
        page.key("Tab")
        page.key("Enter")
        self.assertTrue(page.run("document.getElementById('probabilities').checked"))
        page.run("document.querySelector('[name=mode]:checked').focus()")
        page.key("ArrowLeft")
        self.assertFalse(page.run("document.getElementById('chat').hidden"))

    def test_every_control_has_a_name(self):
        page = self.open(self.serve("-n", "4"))
        page.call("Accessibility.enable")
        roles = ("button", "textbox", "radio", "switch", "spinbutton", "combobox")

        def names():
            nodes = page.call("Accessibility.getFullAXTree")["nodes"]
            return [(node["role"]["value"], node["name"]["value"]) for node in nodes if node["role"]["value"] in roles]

        expected = [("textbox", "Prompt"), ("button", "Send"), ("button", "Clear"), ("radio", "Chat"), ("radio", "Completion"),
                    ("switch", "Token probabilities"), ("button", "Reset options"), *[("spinbutton", name) for name in (
                        "Temperature", "Top-p", "Top-k", "Min-p", "Repetition penalty", "Maximum tokens", "Seed")]]
        self.assertEqual(sorted(names()), sorted(expected))
        self.send(page, "Once")
        self.answer(page)
        self.assertEqual(sorted(names()), sorted([*expected, ("button", "Copy")]))
        self.assertEqual(page.run("[document.documentElement.lang, document.title]"), ["en", "OpenELM"])

    def test_texts_have_contrast_in_light_and_dark(self):
        server = self.serve("-n", "12", "--chat-template", "openelm-instruct")
        backgrounds = set()
        for scheme in ("light", "dark"):
            page = self.open(server, prefers_color_scheme=scheme)
            backgrounds.add(page.run("getComputedStyle(document.documentElement).backgroundColor"))
            contrasts = [page.run(CONTRAST)]
            self.send(page, "Who are you?")
            self.answer(page)
            page.run("document.querySelector('.token').focus()")
            page.wait("!document.querySelector('.tooltip').hidden")
            # The colours of the switch and the segments change slowly.
            page.wait("document.getAnimations().length === 0")
            contrasts.append(page.run(CONTRAST))
            self.set(page, "min_p", "2")
            self.send(page, "Who?")
            self.answer(page, 2)
            self.mode(page, "completion")
            self.mode(page, "chat")
            page.wait("document.getAnimations().length === 0")
            contrasts.append(page.run(CONTRAST))
            page.run("document.getElementById('key-dialog').showModal()")
            contrasts.append(page.run(CONTRAST))
            for count, lowest, text in contrasts:
                self.assertGreater(count, 10)
                self.assertGreaterEqual(lowest, 4.5, (scheme, text))
            self.expect_problems(page, "400")
        self.assertEqual(backgrounds, {"rgb(255, 255, 255)", "rgb(22, 22, 23)"})

    def test_a_window_of_320_pixels_has_no_horizontal_scrolling(self):
        server = self.serve("-n", "12", "--served-model-name", "a-repository/with-a-very-long-name-of-a-model-that-does-not-fit")
        page = self.open(server, width=320, height=640)

        def fits(state):
            self.assertEqual(page.run("document.documentElement.scrollWidth"), 320, state)
            outside = page.run("""[...document.body.querySelectorAll('*')].filter((element) => {
                const { left, right, width } = element.getBoundingClientRect();
                return element.checkVisibility() && !element.closest('.visually-hidden, select') && width > 0 && (left < 0 || right > 320);
            }).map((element) => element.outerHTML.slice(0, 100))""")
            self.assertEqual(outside, [], state)

        fits("at the begin")
        self.send(page, "W" * 300)
        self.answer(page)
        fits("with a long word")
        for token in ("firstElementChild.nextElementSibling", "lastElementChild"):
            page.run(f"document.querySelector('.answer .text').{token}.focus()")
            page.wait("!document.querySelector('.tooltip').hidden")
            fits("with a tooltip")
        page.point("#show-options", click=True)
        self.assertTrue(page.run("document.getElementById('options').checkVisibility()"))
        self.assertEqual(page.run("document.getElementById('show-options').getAttribute('aria-expanded')"), "true")
        fits("with options")
        self.set(page, "top_p", "7")
        page.point("#show-options", click=True)
        self.assertFalse(page.run("document.getElementById('options').checkVisibility()"))
        self.mode(page, "chat")
        self.send(page, "M" * 300)
        self.answer(page)
        # Above the composer, below the header.
        page.wait("(() => { const error = document.querySelector('#chat .error').getBoundingClientRect(); return "
                  "error.height > 0 && error.bottom <= document.getElementById('composer').getBoundingClientRect().top && "
                  "error.top >= document.querySelector('header').getBoundingClientRect().bottom; })()")
        fits("with an error")
        page.run("document.getElementById('key-dialog').showModal()")
        fits("with the dialog")
        self.expect_problems(page, "400")

    def test_nothing_moves_for_users_who_reduce_motion(self):
        server = self.serve("-n", "400", "--min-tokens", "400")
        for motion, moves in (("reduce", False), ("no-preference", True)):
            page = self.open(server, prefers_reduced_motion=motion)
            self.send(page, "Once")
            page.wait("document.querySelectorAll('.token').length > 2")
            animated = page.run("document.getAnimations({ subtree: true }).length > 0")
            page.key("Escape")
            self.answer(page)
            self.assertEqual(animated, moves, motion)


if __name__ == "__main__":
    unittest.main()
