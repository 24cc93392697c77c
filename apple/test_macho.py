"""Tests of apple/macho.py with small generated files: valid, or with one defect each."""

import contextlib
import hashlib
import io
import struct
import tempfile
import unittest
from pathlib import Path

import macho

SYSTEM, CXX, MLX = "/usr/lib/libSystem.B.dylib", "/usr/lib/libc++.1.dylib", "@rpath/libmlx.dylib"


def command(kind, body):
    body += b"\0" * (-len(body) % 8)
    return struct.pack("<2I", kind, 8 + len(body)) + body


def text(kind, value, fields=b""):
    return command(kind, struct.pack("<I", 12 + len(fields)) + fields + value.encode() + b"\0")


def build(kind=macho.EXECUTE, name=None, libraries=(SYSTEM, MLX), rpath="@executable_path/../lib", minimum=14 << 16,
          imports=(("_malloc", 1), ("_mlx_add", 2)), exports=(), section=b"__unwind_info", sign=True, platform=1):
    """A Mach-O file with load commands, chained imports, exports and a signature only."""
    names, entries = b"\0", b""
    for symbol, ordinal in imports:
        entries += struct.pack("<I", (ordinal & 255) | len(names) << 9)
        names += symbol.encode() + b"\0"
    fixups = struct.pack("<7I", 0, 0, 28, 28 + len(entries), len(imports), 1, 0) + entries + names
    # A root with one child per symbol; each child has two bytes of data and no children.
    root, size = b"", 2 + sum(len(symbol) + 2 for symbol in exports)
    for number, symbol in enumerate(exports):
        root += symbol.encode() + b"\0" + bytes([size + 4 * number])
    trie = bytes([0, len(exports)]) + root + b"\2\0\0\0" * len(exports)

    def whole(start):
        trie_at = start + len(fixups)
        signature_at = -(-(trie_at + len(trie)) // 16) * 16
        parts = [command(0x19, b"__TEXT".ljust(16, b"\0") + struct.pack("<4Q4I", 0, 0, 0, 0, 0, 0, 1, 0) + section.ljust(80, b"\0"))]
        parts += [text(0xD, name, bytes(12))] if name else []
        parts += [text(0xC, library, bytes(12)) for library in libraries]
        parts += [text(0x8000001C, rpath)] if rpath else []
        parts += [command(0x32, struct.pack("<4I", platform, minimum, minimum, 0))]
        parts += [command(0x80000034, struct.pack("<2I", start, len(fixups)))]
        parts += [command(0x80000033, struct.pack("<2I", trie_at, len(trie)))]
        parts += [command(0x1D, struct.pack("<2I", signature_at, 4096))] if sign else []
        body = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, kind, len(parts), sum(map(len, parts)), 0, 0) + b"".join(parts)
        return body, signature_at

    body, signature_at = whole(len(whole(0)[0]))
    data = (body + fixups + trie).ljust(signature_at, b"\0")
    hashes = b"".join(hashlib.sha256(data[at : at + 4096]).digest() for at in range(0, len(data), 4096))
    directory = struct.pack(">9I4BI", 0xFADE0C02, 44 + len(hashes), 0x20400, 0x20002, 44, 0, 0, len(hashes) // 32, len(data), 32, 2, 0, 12, 0)
    return data + struct.pack(">5I", 0xFADE0CC0, 20 + len(directory) + len(hashes), 1, 0, 20) + directory + hashes


class Check(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "bin").mkdir()
        (self.folder / "lib").mkdir()
        self.stub = self.folder / "System.tbd"
        self.stub.write_text(
            "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64e-macos ]\ninstall-name: '/usr/lib/libSystem.B.dylib'\n"
            "reexported-libraries:\n  - targets: [ x86_64-macos, arm64e-macos ]\n    libraries: [ '/usr/lib/system/m.dylib' ]\n"
            "exports:\n  - targets: [ x86_64-macos ]\n    symbols: [ _intel_only ]\n"
            "  - targets: [ arm64e-macos ]\n    symbols: [ _free, \n      _exit ]\n    weak-symbols: [ __Znwm ]\n"
            "--- !tapi-tbd\ninstall-name: '/usr/lib/system/m.dylib'\nexports:\n  - targets: [ arm64-macos ]\n    symbols: [ _malloc ]\n...\n"
        )
        self.mlx = build(macho.DYLIB, MLX, (SYSTEM,), None, imports=(), exports=("_mlx_add", "_mlx_free"))

    def check(self, program, mlx=None):
        """Returns the exit status and the reported faults."""
        (self.folder / "bin/tool").write_bytes(program)
        (self.folder / "lib/libmlx.dylib").write_bytes(self.mlx if mlx is None else mlx)
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            status = macho.main(["check", str(self.folder), "--stubs", str(self.stub)])
        return status, output.getvalue()

    def fails(self, words, *files):
        status, output = self.check(*files)
        self.assertEqual(status, 1)
        self.assertIn(words, output)
        self.assertEqual(output.count("\n"), 1, output)

    def test_valid_files_pass(self):
        self.assertEqual(self.check(build()), (0, ""))
        self.assertEqual(self.check(build(imports=(("__Znwm", -3), ("_mlx_free", 2), ("_exit", 1)))), (0, ""))

    def test_unresolved_symbols_fail(self):
        self.fails("libmlx.dylib does not provide _mlx_gone", build(imports=(("_mlx_gone", 2),)))
        self.fails("libSystem.B.dylib does not provide _intel_only", build(imports=(("_intel_only", 1),)))
        self.fails("_mlx_add is unresolved", build(imports=(("_mlx_add", -2),)))
        self.fails("no library provides __Zdlpv", build(imports=(("__Zdlpv", -3),)))
        self.fails("which has no stub", build(libraries=(CXX, MLX), imports=(("__Znwm", 1),)))

    def test_missing_libraries_fail(self):
        self.fails("needs @rpath/libjaccl.dylib", build(libraries=(SYSTEM, MLX, "@rpath/libjaccl.dylib")))
        self.fails("needs /opt/homebrew/lib/libz.dylib", build(libraries=(SYSTEM, MLX, "/opt/homebrew/lib/libz.dylib")))

    def test_a_library_of_mlx_is_found_by_the_paths_of_its_loader(self):
        jaccl = "@rpath/libjaccl.dylib"
        mlx = lambda rpath: build(macho.DYLIB, MLX, (SYSTEM, jaccl), rpath, imports=(), exports=("_mlx_add",))
        self.fails("needs @rpath/libjaccl.dylib, which is not in the folder", build(), mlx(None))
        (self.folder / "lib/libjaccl.dylib").write_bytes(build(macho.DYLIB, jaccl, (SYSTEM,), None, imports=()))
        self.assertEqual(self.check(build(), mlx(None)), (0, ""))
        self.fails("library paths are ['/opt']", build(), mlx("/opt"))

    def test_names_paths_and_platforms(self):
        self.fails("library paths are ['/tmp']", build(rpath="/tmp"))
        self.fails("install name is libmlx.dylib", build(libraries=(SYSTEM,), imports=()),
                   build(macho.DYLIB, "libmlx.dylib", (SYSTEM,), None, imports=()))
        self.fails("needs macOS 15.1", build(minimum=15 << 16 | 1 << 8))
        self.fails("not marked for macOS", build(platform=2))
        self.fails("no __unwind_info", build(section=b"__text"))

    def test_signatures(self):
        self.fails("no code signature", build(sign=False))
        edited = build().replace(b"@executable_path/../lib", b"@executable_path/../lob")
        status, output = self.check(edited)
        self.assertEqual(status, 1)
        self.assertIn("edited after signing", output)

    def test_other_files_fail(self):
        self.fails("not a 64-bit Mach-O", b"\x7fELF" + bytes(100))
        self.fails("truncated", build()[:90])
        self.fails("refers to library 9 of 2", build(imports=(("_malloc", 9),)))

    def test_stubs_hold_imports_and_are_readable(self):
        (self.folder / "tool").write_bytes(build(imports=(("_malloc", 1), ("_mlx_add", 2))))
        out = self.folder / "out.tbd"
        macho.main(["stub", MLX, str(self.folder / "tool"), "--output", str(out)])
        self.assertEqual(macho.read_stubs([out]), {MLX: {"_mlx_add"}})
        self.assertEqual(macho.read_stubs([self.stub])[SYSTEM], {"_free", "_exit", "__Znwm", "_malloc"})


if __name__ == "__main__":
    unittest.main()
