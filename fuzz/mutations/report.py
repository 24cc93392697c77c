"""Collects violations and unnamed files, and prints the summary."""

import re
from collections import Counter, defaultdict

import checks

# The smallest share of failed file cases whose message names the file.
NAMED_SHARE = 0.98
EXAMPLES = 3
EXCEPTIONS = 40


class Report:
    """The outcome of all cases."""

    def __init__(self):
        self.cases, self.codes = Counter(), Counter()
        self.groups = defaultdict(list)
        self.notes = defaultdict(list)
        self.failed, self.unnamed = Counter(), defaultdict(list)
        self.broken = 0

    def add(self, case, result, problems):
        """Adds a case with its violations; returns a line for each new kind of violation."""
        lines = []
        self.cases[case.kind] += 1
        self.codes[result.code if result.code is not None else f"signal {result.signal}"] += 1
        for note in checks.notes(case, result):
            self.notes[note].append(case)
        self.broken += bool(problems)
        for check, found in problems:
            group = self.groups[check, case.group, general(found)]
            group.append((case, found))
            if len(group) == 1:
                lines.append(f"{case.identity} {case.group} ({case.what}): {check}: {found}")
        text = result.stderr.decode("utf-8", "replace")
        # A number that is not finite shows itself in a result, far from its file or option.
        diverged = any(word in text for word in ("finite", "infinity", "the loss is"))
        if result.code in (1, 2) and case.rated and not diverged:
            self.failed[case.kind] += 1
            if not checks.named(case, result):
                self.unnamed[case.kind].append((case, checks.first_line(text)))
        return lines

    def share(self, kind):
        failed = self.failed[kind]
        return 1.0 if not failed else 1 - len(self.unnamed[kind]) / failed

    def passed(self):
        """True without a violation."""
        return not self.groups and not self.unnamed["option"] and self.share("file") >= NAMED_SHARE

    def lines(self):
        """The summary, a line each."""
        for (check, group, _), found in sorted(self.groups.items(), key=lambda item: item[0]):
            yield f"{check}: {group}: {len(found)} cases"
            for case, what in found[:EXAMPLES]:
                yield f"    {case.identity} ({case.what}): {what}"
        for note, cases in self.notes.items():
            yield f"{len(cases)} cases: {note}"
            for case in cases[:EXAMPLES]:
                yield f"    {case.identity} {case.group} ({case.what})"
        for kind, cases in self.unnamed.items():
            mutated = "the mutated file" if kind == "file" else "a given option"
            yield f"{len(cases)} messages do not name {mutated}:"
            for case, line in cases[:EXCEPTIONS]:
                yield f"    {case.identity} {case.group} ({case.what}): {line}"
        for kind, count in sorted(self.cases.items()):
            mutated = "the mutated file" if kind == "file" else "a given option"
            if kind == "valid":
                yield f"{count} valid inputs"
                continue
            yield (f"{count} {kind} cases: {self.failed[kind]} messages, of which "
                   f"{self.share(kind):.2%} name {mutated}")
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items(), key=str))
        yield f"exit codes {codes}"
        yield f"{self.broken} cases with a violation" if not self.passed() else "no violation"


def general(text):
    """A description without what differs between cases of one cause."""
    text = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", "...", text)
    return re.sub(r"[\d.]+", "N", text)[:60]
