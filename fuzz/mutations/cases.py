"""Cases: a command with one mutated file, or with extreme options."""

import os
import random
import shutil
from pathlib import Path

import damage
import options
from readers import all_readers

# Commands whose plain output shows names from files.
PRINTS_NAMES = ("info", "convert", "bench", "fuse")


class Case:
    """A command in a folder of its own.

    `names` are the words of which a message has to contain one; `extreme` is true if an option has
    a value that no machine can serve.
    """

    def __init__(self, identity, kind, group, what, command, names, outputs=(), trains=False,
                 stdin=None, extreme=False, must_fail=False, rated=True,
                 long=False, must_succeed=False):
        self.identity, self.kind, self.group, self.what = identity, kind, group, what
        self.command, self.names, self.outputs = command, names, tuple(outputs)
        self.trains, self.stdin, self.extreme = trains, stdin, extreme
        self.must_fail, self.rated = must_fail, rated
        self.must_succeed = must_succeed
        # A job that may take longer, and is interrupted then.
        self.long = long
        self.prints_names = command[0] in PRINTS_NAMES

    def is_output(self, path):
        """True if `path` is an output, or its unfinished form beside it."""
        first = path.split(os.sep)[0]
        return any(first == name or first.startswith(f".{name}") for name in self.outputs)

    def reports(self):
        """True if the command prints something soon, even if it runs long.

        `pretrain` reads the sequences that --shuffle mixes before its first event.
        """
        if any(word.startswith("--shuffle") for word in self.command):
            return False
        return "--json" in self.command or self.command[0] == "generate"


def copy(base, folder, names):
    folder.mkdir(parents=True)
    for name in names:
        source, target = Path(base) / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


class Files:
    """Cases with a mutated file; the number selects the reader."""

    kind = "file"

    def __init__(self, base, seed, only=None):
        self.base, self.seed = base, seed
        self.readers = [reader for reader in all_readers() if only is None or only in reader.name]

    def valid(self, number, folder):
        """The command of a reader with the file as it is."""
        reader = self.readers[number]
        copy(self.base, folder, reader.inputs)
        return Case(f"valid:{number}", "valid", reader.name, "not mutated", list(reader.command), (),
                    reader.outputs, reader.trains, reader.stdin and str(folder / reader.stdin),
                    rated=False, must_succeed=reader.valid)

    def make(self, number, folder):
        reader = self.readers[number % len(self.readers)]
        chance = random.Random(f"{self.seed} {reader.name} {number}")
        copy(self.base, folder, reader.inputs)
        what = damage.mutate_file(str(folder / reader.file), reader.form, chance,
                                   entries=not reader.stdin)
        not_finite = what.startswith("not finite")
        computes = reader.command[0] in ("generate", "bench", "finetune") and \
            reader.file == "model/model.safetensors"
        names = (os.path.basename(reader.file), *reader.also)
        return Case(f"file:{number}", "file", reader.name, what, list(reader.command), names,
                    reader.outputs, reader.trains, reader.stdin and str(folder / reader.stdin),
                    must_fail=not_finite and computes, rated=not not_finite and not what.startswith("huge"),
                    # More text, or more iterations in the settings.
                    long=" MB of " in what or "(300002)" in what or what.endswith(" at iters"))


class Options:
    """Cases with extreme options of a command."""

    kind = "option"

    def __init__(self, base, seed, openelm, only=None):
        self.base, self.seed = base, seed
        self.commands = [command for command in options.commands(openelm)
                         if only is None or only in command.name]

    def make(self, number, folder):
        command = self.commands[number % len(self.commands)]
        chance = random.Random(f"{self.seed} option {number}")
        copy(self.base, folder, command.inputs)
        made = options.mutate(command, chance, folder)
        return Case(f"option:{number}", "option", command.name, made.what, made.command, made.names,
                    command.outputs + made.outputs, command.trains, extreme=made.extreme, long=True)
