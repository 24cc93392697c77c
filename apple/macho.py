"""Checks that macOS's loader can load arm64 Mach-O files (`check`), or writes a text stub of a
system library from the imports of other files (`stub`). Standard library only.

Formats: Apple's <mach-o/loader.h>, <mach-o/fixup-chains.h> and, for signatures, <kern/cs_blobs.h>;
of text stubs (.tbd, version 4), the symbol lists for arm64 and arm64e macOS.
"""

import argparse
import hashlib
import re
import struct
import sys
from pathlib import Path

EXECUTE, DYLIB = 2, 6
RPATHS = {EXECUTE: "@executable_path/../lib", DYLIB: "@loader_path"}
SYSTEM = ("/usr/lib/", "/System/Library/")
WEAK_LOOKUP = -3  # any library; -2 is a flat look-up, -1 the program itself


class Broken(Exception):
    """An invalid file; the message is the reason."""


class MachO:
    """A file as the loader reads it: kind, libraries, imports as (symbol, library), exports."""

    def __init__(self, path):
        self.path, self.data = path, path.read_bytes()
        self.name = self.minimum = self.signature = None
        self.libraries, self.rpaths, self.sections, self.imports = [], [], set(), set()
        self.exports, self.defined = set(), set()
        try:
            self._read()
        except (struct.error, IndexError, ValueError) as error:
            raise Broken(f"truncated or malformed ({error})") from error

    def _read(self):
        magic, cpu, _, self.kind, commands = struct.unpack_from("<5I", self.data)
        if magic != 0xFEEDFACF or cpu != 0x0100000C:
            raise Broken("not a 64-bit Mach-O file for arm64")
        at, binds, trie, symbols, chained = 32, [], None, None, None
        for _ in range(commands):
            command, size = struct.unpack_from("<2I", self.data, at)
            if size < 8:
                raise Broken(f"a load command at {at} has {size} bytes")
            field = lambda offset: struct.unpack_from("<I", self.data, at + offset)[0]
            if command in (0xC, 0x80000018, 0x8000001F):  # LOAD_DYLIB, _WEAK_, REEXPORT_
                self.libraries.append(self._text(at + field(8)))
            elif command == 0xD:  # ID_DYLIB
                self.name = self._text(at + field(8))
            elif command == 0x8000001C:  # RPATH
                self.rpaths.append(self._text(at + field(8)))
            elif command == 0x32:  # BUILD_VERSION
                self.minimum = (field(8), field(12) >> 16, field(12) >> 8 & 255)
            elif command == 0x1D:  # CODE_SIGNATURE
                self.signature = (field(8), field(12))
            elif command == 0x19:  # SEGMENT_64
                for section in range(field(64)):
                    start = at + 72 + 80 * section
                    self.sections.add(self.data[start : start + 16].rstrip(b"\0").decode())
            elif command == 0x2:  # SYMTAB
                symbols = [field(offset) for offset in (8, 12, 16)]
            elif command in (0x22, 0x80000022):  # DYLD_INFO
                binds = [(field(offset), field(offset + 4), offset) for offset in (16, 24, 32)]
                trie = (field(40), field(44))
            elif command == 0x80000033:  # DYLD_EXPORTS_TRIE
                trie = (field(8), field(12))
            elif command == 0x80000034:  # DYLD_CHAINED_FIXUPS
                chained = field(8)
            at += size
        for start, size, offset in binds:
            self._read_binds(start, start + size, weak=offset == 24)
        if chained is not None:
            self._read_chained(chained)
        if trie and trie[1]:
            self._read_trie(*trie)
        if symbols:
            self._read_symbols(*symbols)

    def _text(self, at):
        return self.data[at : self.data.index(b"\0", at)].decode()

    def _library(self, ordinal):
        if ordinal > 0:
            if ordinal > len(self.libraries):
                raise Broken(f"an import refers to library {ordinal} of {len(self.libraries)}")
            return self.libraries[ordinal - 1]
        return ordinal

    def _uleb(self, at):
        value = shift = 0
        while True:
            byte = self.data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at

    def _read_binds(self, at, end, weak):
        ordinal, symbol = 0, None
        while at < end:
            opcode, low = self.data[at] & 0xF0, self.data[at] & 15
            at += 1
            if opcode == 0x10:
                ordinal = low
            elif opcode == 0x20:
                ordinal, at = self._uleb(at)
            elif opcode == 0x30:
                ordinal = low - 16 if low else 0
            elif opcode == 0x40:
                symbol = self._text(at)
                at += len(symbol.encode()) + 1
            elif opcode == 0x90 or opcode in (0xA0, 0xB0, 0xC0):
                self.imports.add((symbol, WEAK_LOOKUP if weak else self._library(ordinal)))
                for _ in range({0x90: 0, 0xA0: 1, 0xB0: 0, 0xC0: 2}[opcode]):
                    _, at = self._uleb(at)
            elif opcode in (0x60, 0x70, 0x80):
                _, at = self._uleb(at)
            elif opcode not in (0x00, 0x50):
                raise Broken(f"unknown bind opcode {opcode:#x}")

    def _read_chained(self, at):
        _, _, imports, names, count, kind, _ = struct.unpack_from("<7I", self.data, at)
        sizes = {1: 4, 2: 8, 3: 16}
        if kind not in sizes:
            raise Broken(f"unknown format {kind} of chained imports")
        for number in range(count):
            start = at + imports + sizes[kind] * number
            word = struct.unpack_from("<Q" if kind == 3 else "<I", self.data, start)[0]
            bits, shift = (16, 32) if kind == 3 else (8, 9)
            ordinal = word & ((1 << bits) - 1)
            if ordinal >= (1 << bits) - 16:
                ordinal -= 1 << bits
            self.imports.add((self._text(at + names + (word >> shift)), self._library(ordinal)))

    def _read_trie(self, start, size):
        nodes, seen = [(0, b"")], set()
        while nodes:
            node, prefix = nodes.pop()
            if node in seen or node >= size:
                raise Broken("the export trie is malformed")
            seen.add(node)
            length, at = self._uleb(start + node)
            if length:
                self.exports.add(prefix.decode())
            at += length
            children, at = self.data[at], at + 1
            for _ in range(children):
                end = self.data.index(b"\0", at)
                child, after = self._uleb(end + 1)
                nodes.append((child, prefix + self.data[at:end]))
                at = after

    def _read_symbols(self, at, count, names):
        """Checks that undefined symbols are imported; flat look-ups remain unresolved."""
        for number in range(count):
            name, kind, _, description, value = struct.unpack_from("<IBBHQ", self.data, at + 16 * number)
            if not kind & 0xE0 and kind & 0x0F == 1 and value == 0:
                ordinal = description >> 8
                ordinal = ordinal - 256 if ordinal >= 254 else ordinal
                self.imports.add((self._text(names + name), self._library(ordinal)))
            elif not kind & 0xE0 and kind & 0x0E == 0x0E:
                self.defined.add(self._text(names + name))


def signed(file):
    """Checks the SHA-256 of every page, as the kernel does; returns the signature's flags."""
    if file.signature is None:
        raise Broken("no code signature; arm64 Macs kill unsigned programs")
    start, _ = file.signature
    magic, _, count = struct.unpack_from(">3I", file.data, start)
    if magic != 0xFADE0CC0:
        raise Broken("the code signature is malformed")
    for blob in range(count):
        kind, offset = struct.unpack_from(">2I", file.data, start + 12 + 8 * blob)
        if kind == 0:
            break
    else:
        raise Broken("the code signature has no code directory")
    at = start + offset
    magic, _, _, flags, hashes, _, _, slots, limit = struct.unpack_from(">9I", file.data, at)
    size, kind, _, page = struct.unpack_from(">4B", file.data, at + 36)
    if magic != 0xFADE0C02 or (size, kind) != (32, 2) or limit != start:
        raise Broken("the code directory is malformed or does not reach the signature")
    page = 1 << page
    if slots != -(-limit // page):
        raise Broken("the code directory does not cover every page")
    for slot in range(slots):
        data = file.data[slot * page : min((slot + 1) * page, limit)]
        if hashlib.sha256(data).digest() != file.data[at + hashes + 32 * slot :][:32]:
            raise Broken(f"page {slot} differs from its code signature; the file was edited after signing")
    return flags


def read_stubs(paths):
    """Returns {library: symbols}, including the symbols of re-exported libraries."""
    own, passed_on = {}, {}
    for path in paths:
        for document in path.read_text().split("\n--- "):
            name = re.search(r"^install-name:\s*'?([^'\s]+)", document, re.M)
            if not name:
                continue
            name = name.group(1)
            symbols = own.setdefault(name, set())
            for line in re.split(r"\n(?=\S)", document):
                part = line.split(":", 1)[0]
                for block in re.split(r"\n\s+- ", line)[1:]:
                    targets = re.search(r"targets:\s*\[([^]]*)\]", block)
                    if not targets or not re.search(r"\barm64e?-macos\b", targets.group(1)):
                        continue
                    for key, values in re.findall(r"([a-z-]+):\s*\[([^]]*)\]", block):
                        words = [word.strip().strip("'\"") for word in values.split(",")]
                        if part == "reexported-libraries" and key == "libraries":
                            passed_on.setdefault(name, set()).update(words)
                        elif part in ("exports", "reexports") and key.endswith("symbols"):
                            symbols.update(words)
    for name, others in passed_on.items():
        for other in others:
            own[name] |= own.get(other, set())
    return own


def faults(file, files, stubs, minimum, trusted=False):
    """Yields every reason why macOS `minimum` would not load `file`, with `files` in the same
    folder.

    Imports of a `trusted` file are not checked: Apple's linker resolved them, and the stub of
    libc++ is made from them. It needs no library path, because the files that load it have one.
    """
    provided = {other.name: other.exports for other in files if other.name} | stubs
    if file.kind not in RPATHS:
        yield f"neither a program nor a dynamic library (kind {file.kind})"
    if file.kind == DYLIB and file.name != f"@rpath/{file.path.name}":
        yield f"the install name is {file.name}, not @rpath/{file.path.name}"
    if file.minimum is None or file.minimum[0] != 1:
        yield "the file is not marked for macOS"
    elif file.minimum[1:] > minimum:
        yield "needs macOS {}.{}, not {}.{}".format(*file.minimum[1:], *minimum)
    if "__unwind_info" not in file.sections:
        yield "no __unwind_info: a C++ exception or a panic would end the program"
    beside = [library for library in file.libraries if not library.startswith(SYSTEM)]
    for library in beside:
        if library not in {other.name for other in files}:
            yield f"needs {library}, which is not in the folder"
    # The loader also searches the paths of the files that load a library.
    if beside and RPATHS.get(file.kind) not in file.rpaths and (file.rpaths or not trusted):
        yield f"the library paths are {file.rpaths}, expected {RPATHS.get(file.kind)}"
    for symbol, library in [] if trusted else sorted(file.imports, key=str):
        if library == WEAK_LOOKUP:
            # If no library provides a weak symbol, the loader uses the file's own definition.
            known = [file.exports, file.defined] + [provided.get(name, set()) for name in file.libraries]
            if not any(symbol in names for names in known):
                yield f"no library provides {symbol}"
        elif not isinstance(library, str):
            if library != 0 or symbol not in file.exports:
                yield f"{symbol} is unresolved: the import has no library"
        elif library not in provided:
            yield f"{symbol} comes from {library}, which has no stub"
        elif symbol not in provided[library]:
            yield f"{library} does not provide {symbol}"
    try:
        signed(file)
    except Broken as fault:
        yield str(fault)


def check(options):
    minimum = tuple(int(number) for number in options.minimum.split("."))
    stubs, files, failed = read_stubs(options.stubs), [], False
    for path in sorted(options.folder.glob("bin/*")) + sorted(options.folder.glob("lib/*.dylib")):
        try:
            files.append(MachO(path))
        except Broken as fault:
            print(f"{path}: {fault}", file=sys.stderr)
            failed = True
    if not files:
        raise SystemExit(f"{options.folder}: nothing to check in bin and lib")
    for file in files:
        found = set(faults(file, files, stubs, minimum, file.path.name in options.trusted))
        for fault in sorted(found):
            print(f"{file.path}: {fault}", file=sys.stderr)
        failed = failed or bool(found)
        counts = {}
        for _, library in file.imports:
            counts[library] = counts.get(library, 0) + 1
        libraries = ", ".join(f"{library} ({counts.get(library, 0)})" for library in file.libraries)
        print("{}: macOS {}.{}, signed; symbols of {}".format(file.path.name, *(file.minimum or (0, 0, 0))[1:], libraries))
    return 1 if failed else 0


def stub(options):
    symbols = {symbol for path in options.files for symbol, library in MachO(path).imports if library == options.library}
    # Weak look-ups (such as operator new) belong to the C++ library, too.
    symbols |= {s for path in options.files for s, l in MachO(path).imports if l == WEAK_LOOKUP and re.match("__Z(n|d|N?St)", s)}
    symbols |= set(options.also)
    if not symbols:
        raise SystemExit(f"no file imports symbols from {options.library}")
    listed = ",\n    ".join(f"'{symbol}'" for symbol in sorted(symbols))
    options.output.write_text(
        f"--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '{options.library}'\n"
        f"exports:\n  - targets: [ arm64-macos ]\n    symbols: [\n    {listed} ]\n...\n"
    )
    return 0


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("check", help="check FOLDER/bin/* and FOLDER/lib/*.dylib together")
    one.add_argument("folder", type=Path)
    one.add_argument("--minimum", default="14.0", help="oldest macOS to load on (default 14.0)")
    one.add_argument("--stubs", type=Path, nargs="+", default=[], help="text stubs of system libraries")
    one.add_argument("--trusted", nargs="+", default=["libmlx.dylib", "libjaccl.dylib"], help="files whose imports Apple's linker resolved")
    one.set_defaults(run=check)
    two = commands.add_parser("stub", help="write a stub of LIBRARY from the imports of FILES")
    two.add_argument("library")
    two.add_argument("files", type=Path, nargs="*")
    two.add_argument("--also", nargs="+", default=[], metavar="SYMBOL", help="further symbols of the library")
    two.add_argument("--output", type=Path, required=True)
    two.set_defaults(run=stub)
    options = parser.parse_args(words)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
