"""Checks the style and the links of all Markdown files: `python3 docs/check.py`, part of `make lint`.

- Lines have at most 100 columns, except tables, code, and what a link's address adds.
- The words tell, tells and told are not used.
- Dates stand in bench/, docs/platforms.md and CHANGELOG.md only.
- Links to files and headings resolve.
- README.md has at most 130 lines.

Code blocks and generated parts are not checked.
"""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100
README_LINES = 130
DATED = ("bench/", "docs/platforms.md", "CHANGELOG.md")
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = re.compile(rf"\b20\d\d-\d\d-\d\d\b|\b({MONTHS}) (\d\d?, )?20\d\d\b|\b\d\d? ({MONTHS})\b")
TELL = re.compile(r"\b(tell|tells|told)\b", re.IGNORECASE)
LINK = re.compile(r"\]\(<?([^()\s>]+)>?\)")
URL = re.compile(r"https?://\S+")
# A comment that begins a generated part, and one that ends it; otherwise it ends with the file.
GENERATED = re.compile(r"<!-- (Generated below this line|\w+: `make bench` replaces)")
END = re.compile(r"<!-- end of ")


def main():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, check=True, capture_output=True, text=True)
    names = sorted(name for name in listed.stdout.split("\n") if name and (ROOT / name).exists())
    if "README.md" not in names:
        sys.exit("docs: README.md was not found")
    problems = [problem for name in names for problem in check(name)]
    length = len((ROOT / "README.md").read_text().splitlines())
    if length > README_LINES:
        problems.append(f"README.md: {length} lines")
    print("\n".join(problems) or f"docs: {len(names)} Markdown files")
    sys.exit(1 if problems else 0)


def check(name):
    """Problems of a file, a line each."""
    for number, line in prose(name):
        place = f"{name}:{number}"
        columns = len(URL.sub("", LINK.sub("]", line)))
        if columns > COLUMNS and not line.lstrip().startswith(("|", "<!--")):
            yield f"{place}: {columns} columns"
        plain = re.sub(r"`[^`]*`", "", line)
        for found in TELL.finditer(plain):
            yield f"{place}: '{found[0]}'"
        if not name.startswith(DATED):
            for found in DATE.finditer(plain):
                yield f"{place}: the date {found[0]}"
        for target in LINK.findall(plain):
            problem = broken(name, target)
            if problem:
                yield f"{place}: {problem}"


def prose(name):
    """Numbered lines outside code blocks and generated parts."""
    code = generated = False
    for number, line in enumerate((ROOT / name).read_text().split("\n"), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif GENERATED.match(line):
            generated = True
        elif END.match(line):
            generated = False
        elif not code and not generated:
            yield number, line


def broken(name, target):
    """What is wrong with a link, or None."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    file = (ROOT / name).parent / unquote(path) if path else ROOT / name
    if not file.exists():
        return f"{target} does not exist"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return f"{target}: no such heading"
    return None


def anchors(file):
    """Anchors that GitHub gives the headings of a file."""
    found = set()
    for _, line in prose(file.resolve().relative_to(ROOT)):
        heading = re.match(r"#+ (.*)", line)
        if heading:
            text = LINK.sub("]", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


if __name__ == "__main__":
    main()
