"""Makes the bundled model's training text.

    prepare.py OUT HELD_OUT[,HELD_OUT...] BOOKS TALES

All files are JSONL files of {"text"} rows. Runs of 13 words that occur in the HELD_OUT files are
removed from BOOKS and TALES (three of FairytaleQA's validation tales are in the books, word for
word). Books are split at line ends into rows of a tale's length, every tale is repeated three
times, and all rows are shuffled. Prints the removed amount.
"""

import json
import random
import re
import sys
from pathlib import Path

RUN = 13  # words
LONGEST = 12_000  # characters per row
TIMES = 3


def texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines() if line]


def words(text):
    """The words in lower case, with their start and end offsets."""
    return [(found.group().lower(), found.start(), found.end()) for found in re.finditer(r"[^\W_]+", text)]


def runs(found):
    spelled = [word for word, _, _ in found]
    return [" ".join(spelled[at : at + RUN]) for at in range(len(spelled) - RUN + 1)]


def without(text, known):
    """A text without the known runs, and without shorter gaps between them."""
    found = words(text)
    shared = [at for at, run in enumerate(runs(found)) if run in known]
    spans = []
    for at in shared:
        if spans and at <= spans[-1][1] + RUN:
            spans[-1][1] = at + RUN - 1
        else:
            spans.append([at, at + RUN - 1])
    parts, begin = [], 0
    for first, last in spans:
        parts.append(text[begin : found[first][1]])
        begin = found[last][2]
    parts.append(text[begin:])
    return [part.strip() for part in parts if len(part.split()) > RUN]


def cut(text):
    """Rows of at most about LONGEST characters that end at line ends."""
    rows, row, size = [], [], 0
    for line in text.splitlines(keepends=True):
        if row and size + len(line) > LONGEST:
            rows.append("".join(row))
            row, size = [], 0
        row.append(line)
        size += len(line)
    return [*rows, "".join(row)]


def main(out, held_out, books, tales):
    known = {run for path in held_out.split(",") for text in texts(path) for run in runs(words(text))}
    rows = []
    for path, times in ((books, 1), (tales, TIMES)):
        before = texts(path)
        after = [part for text in before for part in without(text, known)]
        lost = sum(map(len, before)) - sum(map(len, after))
        print(f"{path}: {lost:,} of {sum(map(len, before)):,} characters removed")
        rows += [row for text in after for row in cut(text)] * times
    random.Random(0).shuffle(rows)
    lines = (json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows)
    Path(out).write_text("".join(lines))
    print(f"{out}: {len(rows):,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
