"""Compares `--clean-text` with Python's ftfy, and writes what the tests need of it.

    python3 -m venv out/ftfy && out/ftfy/bin/pip install ftfy==6.2.3
    out/ftfy/bin/python parity/clean_text.py lines out/odd.jsonl --count 10000
    OPENELM_ODD_LINES=$PWD/out/odd.jsonl cargo test -p openelm-fix-text --locked -- --ignored
    out/ftfy/bin/python parity/clean_text.py fixture openelm-fix-text/src/fixture.jsonl
    out/ftfy/bin/python parity/clean_text.py entities openelm-fix-text/src/entities.txt

`lines` writes odd lines with ftfy's result: text of many scripts in a wrong encoding, once or twice,
with lost bytes, quotes, ligatures, widths, line breaks, HTML, C1 and control characters, terminal
escapes. `fixture` writes some hundred of them, `entities` the table of HTML entities.
"""

import argparse
import json
import random

import ftfy
from ftfy import bad_codecs, chardata  # noqa: F401, registers the codecs

WORDS = (
    "the old king went to a café in Zürich naïve façade à la carte Ångström señor coração "
    "Привет мир это тест Україна Ελληνικά γλώσσα מזל طيب العربية مرحبا हिन्दी भाषा ไทย 日本語 "
    "テスト 中文字符 한국어 Łódź žluťoučký kůň İstanbul ğüşiöç £5 €20 ½ © ® ™ … – — “quoted” ‘single’ "
    "don’t 🦊 😀 ✔ → ﬁne ﬂow ﬀ Ĳ ŉ ǆ ½ ² × ÷ ± µ º ª ¿qué? ¡ay! «oui» œuvre Œdipe ß ﷽ e\u0301 n\u0303"
).split()
CODECS = chardata.CHARMAP_ENCODINGS
ENTITIES = (
    "&amp; &lt; &gt; &quot; &#39; &#x2019; &eacute; &EACUTE; &NTILDE; &nbsp; &hellip; &amp;amp; "
    "&notanentity; &amp &#0; &#128; &#x80; &#59; &#xD800; &#1114112; &#99999999999; &#x; &#12a; "
    "&lsquo; &SZLIG; &szlig; &Aacute; &ngE; &NotEqualTilde; &sup2; &#13; &#11; &#xFFFE; &#xfb01;"
).split()
CONTROLS = ["\0", "\x07", "\x0b", "\x0c", "\x1a", "\x1f", "\x7f", "\ufeff", "\u200b", "\u206a"]
CONTROLS += ["\ufff9", "\ufffc", "\ufffd", "\u2028", "\u2029", "\x85", "\r\n", "\r", "\n", "\t"]
ESCAPES = ["\x1b[0m", "\x1b[36;44m", "\x1b[1;", "\x1b[", "\x1b[K", "\x1b[٣m"]
WIDE = ["ＬＯＵＤ", "　", "ｶﾀｶﾅ", "ﾊﾞ", "￦", "￣", "ﾡ", "１２３", "！", "￭"]
TAGS = ["<b>", "</p>", "<br/>", "a < b", "&lt;b&gt;"]
MOJIBAKE = "â€™ â€œ â€� Ã© Ã  Â  Â£ ï»¿ ðŸ˜€ Ð¿Ñ€Ð¸ ГЎ вЂ™ Î± Ã¼ å¤§ ‚Äì √© à¤¹ Ø§Ù„".split(" ")


def broken(random: random.Random, text: str) -> str:
    """The text in UTF-8, decoded in a single-byte encoding, in whole or in part."""
    for _ in range(random.choice([1, 1, 1, 2, 2, 3])):
        codec = random.choice(CODECS)
        start = random.choice([0, 0, 0, random.randrange(len(text) + 1)])
        part = text[start:].encode("utf-8", "surrogatepass").decode(codec, "replace")
        if random.random() < 0.2:
            part = part.replace("\xa0", " ")
        if random.random() < 0.1:
            part = "".join("\ufffd" if random.random() < 0.05 else c for c in part)
        text = text[:start] + part
    return text


def line(random: random.Random) -> str:
    parts = []
    for _ in range(random.randrange(1, 12)):
        kind = random.random()
        if kind < 0.5:
            parts.append(random.choice(WORDS))
        elif kind < 0.6:
            parts.append(broken(random, " ".join(random.choices(WORDS, k=random.randrange(1, 4)))))
        elif kind < 0.66:
            parts.append(random.choice(ENTITIES))
        elif kind < 0.72:
            parts.append(random.choice(CONTROLS))
        elif kind < 0.75:
            parts.append(random.choice(ESCAPES) + random.choice(WORDS))
        elif kind < 0.8:
            parts.append(random.choice(WIDE))
        elif kind < 0.82:
            parts.append(random.choice(TAGS))
        elif kind < 0.9:
            parts.append(random.choice(MOJIBAKE))
        elif kind < 0.95:
            codec = random.choice(CODECS)
            some = bytes(random.randrange(0x80, 0x100) for _ in range(random.randrange(1, 5)))
            parts.append(some.decode(codec))
        else:
            parts.append(chr(random.choice([random.randrange(0x20, 0x250), random.randrange(0xA0, 0xD800), random.randrange(0xE000, 0x2FFFF)])))
    text = random.choice(["", " ", " ", " "]).join(parts)
    if random.random() < 0.3:
        text = broken(random, text)
    # Rust's strings have no surrogates.
    return text.encode("utf-8", "ignore").decode("utf-8")


def rows(count: int, seed: int):
    source = random.Random(seed)
    for _ in range(count):
        text = line(source)
        fixed = ftfy.fix_text(text, normalization="NFC")
        yield [text, fixed.encode("utf-8", "replace").decode("utf-8")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["lines", "fixture", "entities"])
    parser.add_argument("output")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open(options.output, "w", encoding="utf-8") as output:
        if options.what == "entities":
            for name, text in sorted(chardata.HTML_ENTITIES.items()):
                numbers = " ".join(f"{ord(character):X}" for character in text)
                output.write(f"{name[1:-1]} {numbers}\n")
            return
        for row in rows(options.count, options.seed):
            output.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
