"""Mutations of bytes, files and containers."""

import gzip
import io
import json
import os
import shutil
import struct
import zipfile

import containers
import values

WORDS = (b"\xff" * 8, b"\xff" * 4 + b"\0" * 4, b"\xff" * 7 + b"\x7f", b"\0" * 8, b"\0\0\0\x80" * 2,
         b"\xff\xff\xff\x7f", b"\xff" * 4, b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x01", b"\x80",
         b"\0" * 4, b"\0\0\0\0\x01\0\0\0")
# NaN or infinity by type.
NOT_FINITE = {"F32": (b"\0\0\xc0\x7f", b"\0\0\x80\xff"), "F16": (b"\0\x7e", b"\0\x7c"),
              "BF16": (b"\xc0\x7f", b"\x80\xff")}
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U32", "U8", "BOOL", "F8_E4M3", "F4", "X")


def flip(data, random):
    """Other bits, mostly near the beginning or the end, where headers are."""
    made = bytearray(data)
    count = random.choice((1, 1, 2, 8, 64))
    for _ in range(count):
        made[place(made, random)] ^= 1 << random.randrange(8)
    return bytes(made), f"flip {count} bits"


def place(data, random):
    near = min(len(data), random.choice((16, 256, 4096, len(data))))
    at = random.randrange(near)
    return len(data) - 1 - at if random.random() < 0.2 else at


def truncate(data, random):
    length = random.choice((1, 8, len(data) - 1, random.randrange(len(data)),
                            random.randrange(len(data))))
    return data[:length], f"truncate to {length} bytes"


def double(data, _):
    return data + data, "double"


def word(data, random):
    """An integer field of extreme value."""
    value, at = random.choice(WORDS), place(data, random)
    at -= at % random.choice((1, 4, 8))
    return data[:at] + value + data[at + len(value):], f"bytes {value.hex()} at {at}"


def insert(data, random):
    what, added = random.choice((
        ("NUL", b"\0"), ("invalid UTF-8", b"\xff\xfe\x80"), ("surrogate", b"\xed\xa0\x80"),
        ("overlong", b"\xc0\x80"), ("escape", b"\x1b[31m\x07"), ("bidi", "\u202e".encode()),
        ("zeros", b"\0" * 4096), ("noise", random.randbytes(64))))
    at = place(data, random)
    return data[:at] + added + data[at:], f"insert {what} at {at}"


def cut(data, random):
    at, length = place(data, random), random.choice((1, 4, 8, 100, 5000))
    return data[:at] + data[at + length:], f"cut {length} bytes at {at}"


def append(data, random):
    added = random.choice((b"\0", b"\n", b"{}", b"\0" * 100_000, b"x"))
    return data + added, f"append {len(added)} bytes"


def empty(_, __):
    return b"", "empty"


def encode(data, random):
    """Text in other encodings and with other line ends."""
    text = data.decode("utf-8", "replace")
    what = random.choice(("BOM", "UTF-16", "UTF-16 BE", "UTF-32", "CRLF", "CR", "latin-1"))
    made = {
        "BOM": "\ufeff".encode() + data, "UTF-16": text.encode("utf-16"),
        "UTF-16 BE": b"\xfe\xff" + text.encode("utf-16-be"), "UTF-32": text.encode("utf-32"),
        "CRLF": data.replace(b"\n", b"\r\n"), "CR": data.replace(b"\n", b"\r"),
        "latin-1": text.encode("latin-1", "replace") + b"\xe9",
    }[what]
    return made, what


def long_text(data, random):
    what, made = random.choice((
        ("300 kB without spaces", b"x" * 300_000), ("Chinese", "\u6f22\u5b57".encode() * 50_000),
        ("300 kB of NUL", b"\0" * 300_000), ("spaces", b" " * 300_000), ("lines", b"\n" * 300_000),
        ("emoji", "\U0001f999\u200d".encode() * 20_000), ("mixed", data + b"\xff" * 1000)))
    return made, what


BYTES = (flip, flip, flip, truncate, truncate, double, word, word, word, insert, cut, append, empty)


def mutate_text(data, random):
    return random.choice((encode, encode, long_text, insert, truncate, empty, flip))(data, random)


def mutate_bytes(data, random):
    return random.choice(BYTES)(data, random)


def of_text(mutate):
    """A mutation of a file with text: of its values, of its encoding or of its bytes."""
    def changed(data, random):
        chance = random.random()
        if chance < 0.75:
            made, what = mutate(data.decode(), random)
            return made.encode("utf-8", "surrogatepass"), what
        return (encode if chance < 0.85 else mutate_bytes)(data, random)
    return changed


def mutate_safetensors(data, random):
    """The header's text or a tensor of it; sometimes bytes."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    header, body = containers.read_safetensors(data)
    if random.random() < 0.35:
        made, what = values.mutate_json(json.dumps(header), random)
        return containers.write_safetensors(made.encode("utf-8", "surrogatepass"), body), what
    name = random.choice([name for name in header if name != "__metadata__"])
    tensor, other = header[name], None
    start, end = tensor["data_offsets"]
    what = random.choice(("shape", "swap", "type", "offsets", "no rows", "rename", "remove", "copy",
                          "not finite", "huge", "length", "metadata", "scalar"))
    if what == "shape":
        tensor["shape"] = random.choice((tensor["shape"][::-1], tensor["shape"] + [1], [-1], [1 << 62, 4],
                                         [1 << 32, 1 << 32], [end - start], tensor["shape"] * 40))
    elif what == "swap":
        other = random.choice([name for name in header if name != "__metadata__"])
        header[name], header[other] = header[other], header[name]
    elif what == "type":
        tensor["dtype"] = random.choice(TYPES)
    elif what == "offsets":
        tensor["data_offsets"] = random.choice(([end, start], [0, end], [start, end + 4], [start, 1 << 63],
                                                [start, start], [0, 0], [len(body), len(body) + 4]))
    elif what == "no rows":
        tensor.update(shape=[0] + tensor["shape"][1:], data_offsets=[start, start])
    elif what == "rename":
        header[random.choice((name + ".x", name.upper(), "transformer.layers.99.ffn.proj_1.weight",
                              "\x1b[31m" + name, "\u202e" + name, "n" * 300_000, ""))] = header.pop(name)
    elif what == "remove":
        del header[name]
    elif what == "copy":
        header["transformer.layers.0.extra.weight"] = dict(tensor)
    elif what in ("not finite", "huge") and tensor["dtype"] in NOT_FINITE:
        pattern = random.choice(NOT_FINITE[tensor["dtype"]])
        if what == "huge":
            pattern = {4: struct.pack("<f", 1e38), 2: b"\xff\x7b"}[len(pattern)]
        body = body[:start] + pattern * ((end - start) // len(pattern)) + body[end:]
    elif what == "length":
        length = random.choice((0, 1, len(data), 1 << 40, (1 << 64) - 1, 100_000_001))
        return struct.pack("<Q", length) + data[8:], f"length {length} of the header"
    elif what == "metadata":
        header["__metadata__"] = random.choice((1, None, [], {"format": 1}, {"x" * 300_000: "y"},
                                                {"format": "\x1b[31m"}))
    else:
        tensor["shape"] = []
    return containers.write_safetensors(header, body), f"{what}: {values.short(name)}"


def mutate_gguf(data, random):
    """Mostly the metadata, which comes first."""
    if random.random() < 0.5:
        return mutate_bytes(data, random)
    keys = [at for at in range(24, min(len(data), 12_000)) if data[at:at + 1].isalpha()]
    at = random.choice(keys)
    what, added = random.choice((("control", b"\x1b\x07"), ("bidi", "\u202e".encode()), ("letter", b"z"),
                                 ("invalid UTF-8", b"\xff"), ("NUL", b"\0")))
    return data[:at] + added + data[at + len(added):], f"{what} in the text at {at}"


def mutate_torch_zip(data, random):
    """The archive's bytes, or one of its files in a correct archive."""
    if random.random() < 0.35:
        return mutate_bytes(data, random)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in files if name.endswith("data.pkl"))
    name = random.choice((pickled, pickled, pickled, random.choice(list(files))))
    action, made = random.random(), io.BytesIO()
    what = "remove"
    if action < 0.8:
        files[name], what = mutate_bytes(files[name], random)
    elif action < 0.9:
        del files[name]
    compression = random.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(made, "w", compression) as archive:
        for kept, content in files.items():
            archive.writestr(kept, content)
    return made.getvalue(), f"{name}: {what}"


def packed(mutate, pack):
    """A mutation of a compressed file: of its contents, its bytes, or a bomb."""
    def changed(data, random):
        chance = random.random()
        if chance < 0.4:
            return mutate_bytes(data, random)
        if chance < 0.5:
            byte, megabytes = random.choice((b"x", b"\n", b" ", b"\0")), random.choice((64, 900))
            bomb = containers.gzip_bomb if pack is gzip.compress else containers.zstd_bomb
            return bomb(byte, megabytes), f"{megabytes} MB of {byte}"
        plain = gzip.decompress(data) if pack is gzip.compress else unframed(data)
        made, what = mutate(plain, random)
        return pack(made), f"contents: {what}"
    return changed


def unframed(data):
    """The contents of a frame of `containers.zstd`."""
    at, made = 6, b""
    while at < len(data):
        length = int.from_bytes(data[at:at + 3], "little") >> 3
        made += data[at + 3:at + 3 + length]
        at += 3 + length
    return made


def mutate_parquet(data, random):
    """The file's bytes, its last part, its counts, its values, or a bomb."""
    chance = random.random()
    if chance < 0.5:
        return mutate_bytes(data, random)
    if chance < 0.7:
        # The footer has the schema and all offsets.
        made, what = mutate_bytes(data[-300:-8], random)
        length = random.choice((len(made), 0, 1 << 31, (1 << 32) - 1, len(data)))
        return data[:-300] + made + struct.pack("<I", length) + b"PAR1", f"footer: {what}"
    if chance < 0.8:
        copies, length = random.choice(((100_000, 3_000), (3_000, 100_000), (1 << 30, 1)))
        return (containers.parquet([b"x " * (length // 2)], copies=copies),
                f"{copies * length >> 20} MB of values")
    if chance < 0.9:
        count = random.choice((0, -1, 1 << 31, (1 << 63) - 1, 1000))
        return containers.parquet([b"once", b"twice"], count=count), f"{count} rows declared"
    key = random.choice((b"", b"other", b"\xff", b"\x1b[31m", "\u202e".encode(), b"k" * 300_000))
    value = random.choice((b"", b"\xff\xfe", b"\0" * 300_000, b"once"))
    return containers.parquet([value, b"twice"], random.choice((key, b"text"))), "other names or values"


FORMS = {
    "json": of_text(values.mutate_json),
    "jsonl": of_text(values.mutate_lines),
    "toml": of_text(values.mutate_toml),
    "text": mutate_text,
    "bytes": mutate_bytes,
    "safetensors": mutate_safetensors,
    "gguf": mutate_gguf,
    "torch": mutate_torch_zip,
    "parquet": mutate_parquet,
    "jsonl.gz": packed(of_text(values.mutate_lines), gzip.compress),
    "jsonl.zst": packed(of_text(values.mutate_lines), containers.zstd),
    "txt.gz": packed(mutate_text, gzip.compress),
    "txt.zst": packed(mutate_text, containers.zstd),
}


def replace_file(path, random):
    """Another entry in place of the file."""
    os.remove(path)
    what = random.choice(("folder", "link loop", "broken link", "missing", "device", "null device",
                          "folder link", "folder with a file"))
    if what == "folder":
        os.mkdir(path)
    elif what == "link loop":
        os.symlink(os.path.basename(path), path)
    elif what == "broken link":
        os.symlink("absent", path)
    elif what == "device":
        os.symlink("/dev/zero", path)
    elif what == "null device":
        os.symlink("/dev/null", path)
    elif what == "folder link":
        os.symlink(".", path)
    elif what == "folder with a file":
        os.mkdir(path)
        shutil.copy(__file__, path)
    return what


def mutate_file(path, form, random, entries=True):
    """Mutates the file, or with `entries` what has its name; returns the mutation's description."""
    if random.random() < 0.06 and entries:
        return replace_file(path, random)
    with open(path, "rb") as file:
        data = file.read()
    made, what = FORMS[form](data, random)
    with open(path, "wb") as file:
        file.write(made)
    return what
