"""Writers of files that the tool reads but does not write, with the standard library only."""

import gzip
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

MASK = (1 << 64) - 1


def read_safetensors(data):
    """The header and the data of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


def write_safetensors(header, data):
    """A file with `header`, which is an object or its text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors(file):
    """The tensors of a safetensors file: name, type, shape and bytes."""
    header, data = read_safetensors(file)
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            yield name, tensor["dtype"], tensor["shape"], data[start:end]


class Storage:
    """A buffer of a tensor; float32 only."""

    def __init__(self, data):
        self.data = data
        self.length = len(data) // 4


class Tensor:
    """A contiguous tensor, pickled as PyTorch does."""

    def __init__(self, shape, data):
        self.shape, self.storage = tuple(shape), Storage(data)

    def __reduce__(self):
        strides = [1] * len(self.shape)
        for i in range(len(self.shape) - 1, 0, -1):
            strides[i - 1] = strides[i] * self.shape[i]
        rebuild = stand_in("torch._utils", "_rebuild_tensor_v2")
        return rebuild, (self.storage, 0, self.shape, tuple(strides), False, OrderedDict())


def stand_in(module, name):
    """A class that pickles as `module.name`, and is found there by the pickler."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if path not in sys.modules:
            sys.modules[path] = types.ModuleType(path)
    place = sys.modules[module]
    if not hasattr(place, name):
        setattr(place, name, type(name, (), {"__module__": module}))
    return getattr(place, name)


class Pickler(pickle._Pickler):
    """Names storages by number."""

    def __init__(self, file, storages, legacy):
        super().__init__(file, 2)
        self.storages, self.legacy = storages, legacy

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages.append(value)
        location = ("storage", stand_in("torch", "FloatStorage"), str(len(self.storages) - 1),
                    "cpu", value.length)
        return location + (None,) if self.legacy else location


def torch_pickle(value):
    """The pickle of `value`, and its storages."""
    storages, file = [], io.BytesIO()
    Pickler(file, storages, False).dump(value)
    return file.getvalue(), storages


def torch_zip(data, storages, compression=zipfile.ZIP_STORED):
    """A file of PyTorch since 1.6 with the pickle `data`."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr("model/data.pkl", data)
        for i, storage in enumerate(storages):
            archive.writestr(f"model/data/{i}", storage.data)
        archive.writestr("model/version", b"3\n")
    return made.getvalue()


def torch_legacy(value):
    """A file of PyTorch before 1.6."""
    storages, file = [], io.BytesIO()
    facts = {"protocol_version": 1001, "little_endian": True,
             "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for part in (0x1950A86A20F9469CFC6C, 1001, facts):
        pickle.dump(part, file, protocol=2)
    Pickler(file, storages, True).dump(value)
    pickle.dump([str(i) for i in range(len(storages))], file, protocol=2)
    for storage in storages:
        file.write(struct.pack("<q", storage.length) + storage.data)
    return file.getvalue()


def varint(value):
    value &= MASK
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(made + bytes([value]))


def field(number, value):
    """A field of a protobuf message: a number, a float or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def sentencepiece(pieces):
    """A `tokenizer.model` of LLaMA's kind; `pieces` are texts with scores and types."""
    listed = b"".join(field(1, field(1, text) + field(2, float(score)) + field(3, kind))
                      for text, score, kind in pieces)
    trainer = field(2, field(3, 2) + field(35, 1))
    return listed + trainer + field(3, field(1, b"identity") + field(3, 1) + field(4, 0))


def pieces_of(vocabulary):
    """The pieces of a vocabulary in the order of its ids."""
    for text, i in sorted(vocabulary.items(), key=lambda item: item[1]):
        kind = {0: 2, 1: 3, 2: 3}.get(i, 6 if text.startswith("<0x") and i < 259 else 1)
        yield text.encode(), -float(i), kind


def zstd(data, copies=1):
    """A frame of Zstandard with `data` in uncompressed blocks, `copies` times as frames."""
    blocks = [data[i:i + 100_000] for i in range(0, len(data), 100_000)] or [b""]
    made = b"\x28\xb5\x2f\xfd\x00\x58"  # No content size; a window of 2 MiB.
    for i, block in enumerate(blocks):
        made += ((len(block) << 3) | (i == len(blocks) - 1)).to_bytes(3, "little") + block
    return made * copies


def zstd_bomb(byte, megabytes):
    """A frame that repeats one byte: 4 bytes per 128 KiB."""
    count = megabytes * 8
    block = ((128 << 10) << 3) | 2
    body = (block.to_bytes(3, "little") + byte) * (count - 1)
    return b"\x28\xb5\x2f\xfd\x00\x58" + body + (block | 1).to_bytes(3, "little") + byte


def gzip_bomb(byte, megabytes):
    """Members of 32 MiB of one byte each."""
    member = gzip.compress(byte * (32 << 20), 6)
    return member * max(1, megabytes // 32)


def compact(fields):
    """A struct of Thrift's compact protocol: values by id, as (type, bytes)."""
    made, last = b"", 0
    for number, (kind, data) in sorted(fields.items()):
        made += bytes([(number - last) << 4 | kind]) + data
        last = number
    return made + b"\0"


def zigzag(value):
    return varint(value << 1 ^ value >> 63)


def i32(value):
    return 5, zigzag(value)


def i64(value):
    return 6, zigzag(value)


def text(value):
    return 8, varint(len(value)) + value


def struct_of(fields):
    return 12, compact(fields)


def list_of(kind, items):
    assert len(items) < 15
    return 9, bytes([len(items) << 4 | kind]) + b"".join(items)


def parquet(values, key=b"text", copies=0, count=None):
    """A file with one required column of strings, uncompressed, in one page.

    With `copies`, the page repeats the first value through a dictionary. `count` is the number of
    rows that the file declares.
    """
    page = b"".join(struct.pack("<I", len(value)) + value for value in values)
    rows, pages = copies or len(values), b""
    encoding = 8 if copies else 0
    if copies:
        pages = compact({1: i32(2), 2: i32(len(page)), 3: i32(len(page)),
                         7: struct_of({1: i32(len(values)), 2: i32(0)})}) + page
        # One run of indices of one bit.
        page = b"\x01" + varint(copies << 1) + b"\0"
    start, rows = 4 + len(pages), rows if count is None else count
    pages += compact({1: i32(0), 2: i32(len(page)), 3: i32(len(page)),
                      5: struct_of({1: i32(rows), 2: i32(encoding), 3: i32(3), 4: i32(3)})}) + page
    column = {1: i32(6), 2: list_of(5, [zigzag(encoding)]), 3: list_of(8, [text(key)[1]]), 4: i32(0),
              5: i64(rows), 6: i64(len(pages)), 7: i64(len(pages)), 9: i64(start)}
    if copies:
        column[11] = i64(4)
    chunk = compact({2: i64(4), 3: struct_of(column)})
    group = compact({1: list_of(12, [chunk]), 2: i64(len(pages)), 3: i64(rows)})
    schema = [compact({4: text(b"schema"), 5: i32(1)}),
              compact({1: i32(6), 3: i32(0), 4: text(key), 6: i32(0)})]
    footer = compact({1: i32(1), 2: list_of(12, schema), 3: i64(rows), 4: list_of(12, [group])})
    return b"PAR1" + pages + footer + struct.pack("<I", len(footer)) + b"PAR1"
