"""Options of the tool's commands, read from its help, and extreme values of them."""

import re
import subprocess
from collections import namedtuple

import values
from process import environment
from readers import PRETRAIN, PROMPT, SHORT

# A command, a valid command line of it, and its options with a value.
Command = namedtuple("Command", "name line inputs outputs trains toml options")
# `numeric` is false if the value is a text or a path.
Option = namedtuple("Option", "flag value numeric")
Mutated = namedtuple("Mutated", "command names what extreme outputs")

# The valid command line of each command, with what it reads and writes.
LINES = {
    "generate": (["generate", "--model", "model", *PROMPT], "model", (), None),
    "cache-prompt": (["cache-prompt", "--model", "model", "--prompt", "The", "--prompt-cache-file", "out"],
                     "model", ("out",), None),
    "score": (["score", "--model", "model", "--jsonl", "corpus.jsonl", "--quiet"],
              "model corpus.jsonl", (), None),
    # The file is no socket: only what the start checks.
    "serve": (["serve", "--model", "model", "--unix-socket", "model/config.json"], "model", (), None),
    # Standard input is empty: only what the start checks.
    "chat": (["chat", "--model", "model", "--max-tokens", "2"], "model", (), None),
    "bench": (["bench", "--model", "model", "--prompt-tokens", "4", "--max-tokens", "2", "--repeat",
               "1"], "model", (), None),
    "evaluate": (["evaluate", "--model", "model", "--perplexity", "corpus.txt", "--output-dir", "out"],
                 "model corpus.txt", ("out",), None),
    "convert": (["convert", "model", "out", "--quantize", "--q-group-size", "32", "--quiet"], "model",
                ("out",), None),
    "quantize": (["quantize", "model", "out", "--data", "corpus.txt", "--group-size", "32", "--samples",
                  "2", "--max-seq-length", "8", "--epochs", "1", "--quiet"], "model corpus.txt", ("out",),
                 None),
    "average": (["average", "model", "model", "--output", "out", "--quiet"], "model", ("out",), None),
    "plot": (["plot", "metrics.jsonl", "--output", "out.svg", "--quiet"], "metrics.jsonl",
             ("out.svg", "out.png"), None),
    "fuse": (["fuse", "--model", "model", "--adapter-path", "adapter", "--save-path", "out",
              "--quiet"], "model adapter", ("out",), None),
    "convert-adapter": (["convert-adapter", "adapter", "out", "--model", "model", "--quiet"],
                        "model adapter", ("out",), None),
    "finetune": (["finetune", "--model", "model", "--data", "text", "--adapter-path", "out", *SHORT,
                  "--json"], "model text adapter finetune.toml", ("out",), "finetune.toml"),
    "pretrain": ([*PRETRAIN, "--output", "out", "--iters", "1", "--json"],
                 "model pretrain.toml corpus.jsonl", ("out",), "pretrain.toml"),
    # From the cache. Nothing is uploaded, because the tool is offline.
    "pull": (["pull", "local/tales", "--quiet"], "cache", (), None),
    "push": (["push", "model", "local/pushed", "--quiet"], "model", (), None),
    "tokenizer train": (["tokenizer", "train", "--data", "corpus.txt", "--vocab-size", "300",
                         "--output", "out"], "corpus.txt", ("out",), None),
}
# Placeholders of values that are no numbers.
TEXTS = re.compile(r"^(TEXT|KEYS?|GLOB|REGEX.*|NAMES?|MODE|NAME\|FILE|NAME=PATH\|REPO|HOST|ORIGINS)$")
# A server whose socket can be opened does not end.
LASTING = {"--unix-socket"}
PATHS = re.compile(r"^(FOLDER|FILE|FILES|PATH|PATH\|REPO)$")
CHOICES = re.compile(r"possible\s+values")
NUMBERS = ("0", "1", "2", "3", "-1", "-2", "7", "255", "256", "65535", "65536", "2147483647",
           "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296", "5000000000",
           "1000000000000", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
           "18446744073709551615", "18446744073709551616", "1e308", "1e309", "-1e308", "1e-300",
           "1e38", "3.5e38", "1e-45", "nan", "-nan", "inf", "-inf", "0.5", "0.999999999", "1.0000001",
           "-0.0", "1e3", "0x10", "1_000", "+1", " 1", "1 ", "", "1,2", ",", "1,", "9" * 400,
           "\u0663", "1\u202e", "one", "1;2", "1=2", "0.1,1e30", "1e30,1e30", "nan,nan")
PATH_VALUES = ("", " ", "absent", "model/config.json", "a" * 300, "a/" * 3000, "x\u202ey", "x\x1b[31my",
               "/dev/null", "absent/absent", ".", "//", "absent=2", "=", "model=nan", ",", "x\ny")
FLAGS = re.compile(r"^ {2,8}(?:(-\w), )?(--[\w-]+)(?: <([^>]+)>)?", re.MULTILINE)


def commands(openelm):
    """The commands that have options with a value."""
    for name in names(openelm):
        found = parse(help_of(openelm, name.split()))
        if found and name in LINES:
            line, inputs, outputs, toml = LINES[name]
            yield Command(name, line, inputs.split(), outputs, toml is not None, toml, found)
        elif found:
            raise SystemExit(f"mutations: the new command `{name}` needs a line in options.py")


def names(openelm, before=()):
    """Names of all commands, with those below them."""
    listed = help_of(openelm, before).partition("Commands:")[2].partition("\n\n")[0]
    for name in re.findall(r"^  (\w[\w-]*)", listed, re.MULTILINE):
        if name != "help":
            below = list(names(openelm, (*before, name)))
            yield from below or [" ".join((*before, name))]


def help_of(openelm, command):
    done = subprocess.run([openelm, *command, "--help"], capture_output=True, text=True, check=True,
                          env=environment())
    return done.stdout


def parse(text):
    """The options with a value, from a help text."""
    found = []
    matches = list(FLAGS.finditer(text))
    for match, following in zip(matches, matches[1:] + [None]):
        _, flag, value = match.groups()
        described = text[match.end():following.start() if following else len(text)]
        if value is not None and not CHOICES.search(described) and flag not in LASTING:
            found.append(Option(flag, value, not (TEXTS.match(value) or PATHS.match(value))))
    return found


def mutate(command, random, folder):
    """The command's line with one or two options of extreme values, sometimes in its TOML file."""
    numeric = [option for option in command.options if option.numeric]
    others = [option for option in command.options if not option.numeric]
    count = 2 if random.random() < 0.35 else 1
    pool = numeric if numeric and random.random() < 0.85 else others or numeric
    chosen = random.sample(pool, min(count, len(pool)))
    line, described, shown, extreme = list(command.line), [], [], False
    given = []
    in_toml = bool(command.toml) and random.random() < 0.3
    for option in chosen:
        value = any_value(command, option, random)
        extreme |= is_extreme(value)
        described.append(f"{option.flag}={values.short(value)}")
        given.append((option, value))
        shown += words_of(option, value)
        remove(line, option.flag)
        if in_toml:
            set_in_toml(folder / command.toml, option, value, random)
        else:
            line.append(f"{option.flag}={value}")
    if in_toml and command.toml not in line:
        line += ["--config", command.toml]
    # A value can also make another option of the line wrong.
    shown += [part for part in line if part.startswith("--") and "=" not in part]
    if in_toml:
        shown += [option.flag[2:] for option in chosen]
        shown += [option.flag[2:].replace("-", "_") for option in chosen]
    return Mutated(line, tuple(shown), " ".join(described) + (" in TOML" if in_toml else ""), extreme,
                   written(command, given))


def any_value(command, option, random):
    if option.numeric:
        if random.random() < 0.75:
            value = random.choice(NUMBERS)
        else:
            value = str(int(10 ** random.uniform(0, 20)))
        # Each process would take memory before anything is refused.
        if option.flag == "--processes" and value.isdigit() and 8 < int(value) < 1 << 31:
            value = "3"
        return value
    if PATHS.match(option.value):
        # An output must stay in the case's folder.
        if is_output(command, option):
            return random.choice(("", "out", "model/config.json", "out/" * 3))
        return random.choice(PATH_VALUES)
    return random.choice(("", " ", "\u202e", "x" * 100_000, "(", "[", "*", "(a*)*$", "=", "a=", "=3",
                          "a=b=c", "\x1b[31m", "\n", ".*=4", ".*=99999999999999999999", "text", ",",
                          "(" * 20_000, "a{1000}{1000}{1000}", "-", "--"))


def is_output(command, option):
    """True if the valid command line gives an output by this option."""
    return any(part == option.flag and following in command.outputs
               for part, following in zip(command.line, command.line[1:]))


def written(command, given):
    """The first parts of the outputs that options name, unless they are inputs."""
    firsts = (value.split("/")[0] for option, value in given if is_output(command, option))
    return tuple(first for first in firsts if first and first not in command.inputs)


def words_of(option, value):
    """Words of a message that name the option: its flag, a path, a number that is no other."""
    yield option.flag
    if not option.numeric:
        # A long or unprintable path is shortened.
        yield re.split(r"[^ -~]", value)[0][:40] or option.flag
        yield value.split("/")[0][:40] or option.flag
    elif len(value) > 2:
        yield value


def is_extreme(value):
    """True if a part of the value is a number of at least 2^31."""
    for part in re.split(r"[,;= ]", value):
        try:
            if not abs(float(part)) < 1 << 31:
                return True
        except ValueError:
            pass
    return False


def remove(line, flag):
    """Removes the option and its value."""
    while flag in line:
        at = line.index(flag)
        del line[at:at + 2]


def set_in_toml(path, option, value, random):
    """Sets the option in the file: above its tables, or in its last one with an underscore."""
    key = option.flag[2:]
    if not re.fullmatch(r"[+-]?[0-9_]+(\.[0-9]+)?(e[+-]?[0-9]+)?|[+-]?(inf|nan)|0x[0-9a-f]+", value):
        parts = value.split(",")
        value = f"[{value}]" if len(parts) == 2 and all(parts) else quoted(value)
    lines = [line for line in path.read_text().splitlines()
             if line.partition(" = ")[0].replace("_", "-") != key]
    if "[model]" in lines and random.random() < 0.5:
        lines.append(f"{key.replace('-', '_')} = {value}")
    else:
        lines.insert(0, f"{key} = {value}")
    path.write_text("\n".join(lines) + "\n")


def quoted(text):
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04X}" for c in text) + '"'
