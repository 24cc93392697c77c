"""Writes files as `torch.save` does, without PyTorch, for openelm-core/tests/torch_file.rs.

    PYTHONPATH=.mlx/oracle python3 parity/torch_writer.py [--pytorch] [FOLDER]

The default FOLDER is openelm-core/tests/fixtures/torch. The pickles are Python's: stand-in classes
have the names of PyTorch's classes, so that the pickler writes these names. The zip archive has the
layout of PyTorch 1.13 and 2.x: uncompressed entries at multiples of 64 bytes, sizes after the data,
64-bit records at the end.

With `--pytorch`, no fixtures are written: PyTorch, which must be installed, loads the existing
fixtures; their values are compared with the expected ones, and PyTorch writes two files,
pytorch_zip.pt and pytorch_legacy.pt.
"""

import io
import pickle
import struct
import sys
import types
import zlib
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/torch"
STORAGES = {
    "f32": "FloatStorage",
    "f16": "HalfStorage",
    "bf16": "BFloat16Storage",
    "f64": "DoubleStorage",
    "i64": "LongStorage",
    "u8": "ByteStorage",
}
NUMPY = {"f32": "<f4", "f16": "<f2", "bf16": "<u2", "f64": "<f8", "i64": "<i8", "u8": "u1"}

# `view`: None, or the part (offset, length) in a file of PyTorch before 0.4.
View = namedtuple("View", "storage offset length")


class Storage:
    """A buffer shared by tensors, with numpy `values`; bf16 values are given as float32."""

    def __init__(self, kind, values):
        values = np.ascontiguousarray(values)
        if kind == "bf16":  # The upper half of a float32, exact for the fixtures' values.
            values = values.astype("<f4").view("<u4") >> 16
        self.kind = kind
        self.data = values.astype(NUMPY[kind]).tobytes()
        self.length = values.size


class Tensor:
    """Elements of a storage, by default all in one row."""

    def __init__(self, storage, shape=None, strides=None, offset=0, parameter=False):
        self.storage = storage
        self.shape = tuple(shape if shape is not None else (storage.length,))
        if strides is None:
            strides = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        self.strides = tuple(strides)
        self.offset = offset
        self.parameter = parameter

    def __reduce__(self):
        rebuild = stand_in("torch._utils", "_rebuild_tensor_v2")
        hooks = OrderedDict()
        arguments = (self.storage, self.offset, self.shape, self.strides, False, hooks)
        if not self.parameter:
            return rebuild, arguments
        plain = Tensor(self.storage, self.shape, self.strides, self.offset)
        return stand_in("torch._utils", "_rebuild_parameter"), (plain, True, hooks)


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
    """Names storages by `key(storage)`, and strings as `torch.save` does: by identity."""

    def __init__(self, file, protocol, key, legacy):
        super().__init__(file, protocol)
        self.key, self.legacy = key, legacy

    def persistent_id(self, value):
        view = None
        if isinstance(value, View):
            value, view = value.storage, (f"{self.key(value.storage)}-{value.offset}", *value[1:])
        if not isinstance(value, Storage):
            return None
        kind = stand_in("torch", STORAGES[value.kind])
        location = ("storage", kind, self.key(value), "cpu", value.length)
        return location + (view,) if self.legacy else location


def numbered(storages, first, step):
    """Keys for storages in order of occurrence, collected in `storages`."""

    def key(storage):
        for name, known in storages.items():
            if known is storage:
                return name
        name = str(first + step * len(storages))
        storages[name] = storage
        return name

    return key


def save_zip(path, value, protocol=2, byteorder="little", folder=None):
    """Like `torch.save` since PyTorch 1.6; with `byteorder` None, before 2.1."""
    storages, data = {}, io.BytesIO()
    Pickler(data, protocol, numbered(storages, 0, 1), False).dump(value)
    entries = [("data.pkl", data.getvalue())]
    if byteorder:
        entries.append(("byteorder", byteorder.encode()))
    entries += [(f"data/{key}", storages[key].data) for key in sorted(storages)]
    entries.append(("version", b"3\n"))
    if byteorder:
        entries.append((".data/serialization_id", b"0" * 40))
    folder = folder or Path(path).stem
    Path(path).write_bytes(archive([(f"{folder}/{name}", data) for name, data in entries]))


def archive(entries):
    """A zip archive with the contents of `entries` at multiples of 64 bytes."""
    body, directory = b"", b""
    for name, data in entries:
        name = name.encode()
        start = len(body)
        # Flags: sizes after the data, UTF-8 names. The extra field "FB" is padding.
        padding = -(start + 30 + len(name) + 4) % 64
        filling = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        body += struct.pack(
            "<4s5H3I2H", b"PK\3\4", 0, 0x0808, 0, 0, 0, 0, 0, 0, len(name), len(filling)
        )
        body += name + filling + data
        sizes = (zlib.crc32(data), len(data), len(data))
        body += struct.pack("<4s3I", b"PK\7\x08", *sizes)
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x0808, 0, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, start
        )
        directory += name
    at, size, count = len(body), len(directory), len(entries)
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0x031E, 45, 0, 0, count, count, size, at)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    end += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, size, at, 0)
    return body + directory + end


def save_legacy(path, value, protocol=2, little_endian=True):
    """Like `torch.save` before PyTorch 1.6."""
    storages, file = {}, io.BytesIO()
    sizes = {"short": 2, "int": 4, "long": 4}
    facts = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": sizes}
    for head in (0x1950A86A20F9469CFC6C, 1001, facts):
        pickle.dump(head, file, protocol=protocol)
    Pickler(file, protocol, numbered(storages, 94_000_000, 64), True).dump(value)
    pickle.dump(sorted(storages), file, protocol=protocol)
    for key in sorted(storages):
        file.write(struct.pack("<q", storages[key].length) + storages[key].data)
    Path(path).write_bytes(file.getvalue())


def state_dict(**tensors):
    """Like `Module.state_dict()`: its attribute `_metadata` is in the pickle, too."""
    made = OrderedDict((name.replace("__", "."), tensor) for name, tensor in tensors.items())
    made._metadata = OrderedDict([("", {"version": 1}), ("norm", {"version": 1})])
    return made


def counting(kind, length, first=0.0):
    """first, first + 0.5, ..., exact in all dtypes."""
    return Storage(kind, first + np.arange(length) / 2)


def weights():
    """The three dtypes; two tensors in one storage; transposed, sliced and shared tensors."""
    shared = counting("f32", 12, 100)
    tied = counting("f16", 6)
    return state_dict(
        token_embeddings__weight=Tensor(tied, (3, 2)),
        classifier__weight=Tensor(tied, (3, 2)),
        layers__0__q__weight=Tensor(shared, (2, 3)),
        layers__0__k__weight=Tensor(shared, (2, 3), offset=6),
        layers__0__transposed=Tensor(counting("f32", 6), (3, 2), (1, 3)),
        layers__0__columns=Tensor(counting("bf16", 12), (3, 2), (4, 1), offset=1),
        layers__0__every_other=Tensor(counting("bf16", 8), (4,), (2,)),
        norm__weight=Tensor(counting("bf16", 4, -1), parameter=True),
        scale=Tensor(counting("f32", 1, 3), ()),
        nothing=Tensor(Storage("f32", np.zeros(0)), (0, 3)),
    )


def training_checkpoint():
    """A CoreNet checkpoint with AdamW's state, a numpy scalar and names that are not weights."""
    steps = {
        0: {"step": Tensor(Storage("f32", np.ones(1)), ()), "exp_avg": Tensor(counting("f32", 4))},
        1: {"step": 2000, "exp_avg": Tensor(Storage("f64", np.ones(3)))},
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.98), "amsgrad": False, "fused": None, "params": [0, 1]}
    return {
        "iterations": 350000,
        "epoch": 0,
        "model_state_dict": state_dict(
            module__norm__weight=Tensor(counting("f32", 4)),
            module__layers__0__weight=Tensor(counting("f32", 6, 10), (2, 3)),
        ),
        "optim_state_dict": {"state": steps, "param_groups": [group], "seen": {2**70}},
        "best_metric": np.float64(2.5),
        "is_interval_ckpt": True,
        "gradient_scaler_state_dict": {"scale": 65536.0, "_growth_tracker": 12},
        "ema_state_dict": state_dict(
            norm__weight=Tensor(counting("f32", 4, 20)),
            layers__0__weight=Tensor(counting("f32", 6, 30), (2, 3)),
        ),
    }


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    save_zip(folder / "weights.pt", weights())
    save_zip(folder / "weights_protocol4.pt", dict(weights()), 4, None, folder="archive")
    save_legacy(folder / "weights_legacy.pt", weights())
    save_zip(folder / "training.pt", training_checkpoint())
    save_legacy(folder / "training_legacy.pt", training_checkpoint())
    root = counting("f32", 8)
    views = {"a": Tensor(View(root, 2, 4), (4,)), "b": Tensor(View(root, 6, 2), (2, 1))}
    save_legacy(folder / "views_legacy.pt", views)
    plain = {"weight": Tensor(counting("f32", 2))}
    save_zip(folder / "big_endian.pt", plain, byteorder="big")
    save_legacy(folder / "big_endian_legacy.pt", plain, little_endian=False)
    save_zip(folder / "float64.pt", plain | {"double": Tensor(counting("f64", 2))})


def with_pytorch(folder):
    """Compares PyTorch's values of the fixtures with the expected ones, and writes its files."""
    import torch

    if not hasattr(np, "_core"):  # Its name before numpy 2.
        sys.modules.update({"numpy._core": np.core, "numpy._core.multiarray": np.core.multiarray})
    kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

    def check(found, tensor):
        storage, first = tensor.storage, 0
        if isinstance(storage, View):
            storage, first = storage.storage, storage.offset
        values = np.frombuffer(storage.data, NUMPY[storage.kind])
        if storage.kind == "bf16":
            values = (values.astype("<u4") << 16).view("<f4")
        size = values.itemsize
        expected = np.lib.stride_tricks.as_strided(
            values[first + tensor.offset :], tensor.shape, [size * step for step in tensor.strides]
        )
        assert found.dtype == kinds[storage.kind], found
        assert tuple(found.shape) == tensor.shape, found
        assert (found.detach().float().numpy() == expected).all(), found

    root = counting("f32", 8)
    views = {"a": Tensor(View(root, 2, 4), (4,)), "b": Tensor(View(root, 6, 2), (2, 1))}
    cases = [
        ("weights.pt", None, weights()),
        ("weights_protocol4.pt", None, weights()),
        ("weights_legacy.pt", None, weights()),
        ("views_legacy.pt", None, views),
    ]
    for name in ("training.pt", "training_legacy.pt"):
        for key in ("model_state_dict", "ema_state_dict"):
            cases.append((name, key, training_checkpoint()[key]))
    for name, key, expected in cases:
        found = torch.load(folder / name)
        found = found[key] if key else found
        assert list(found) == list(expected), name
        for tensor in expected:
            check(found[tensor], expected[tensor])
        print(f"{name}: PyTorch {torch.__version__} reads the expected values")

    torch.manual_seed(0)
    model = torch.nn.Sequential(OrderedDict(proj=torch.nn.Linear(3, 2, bias=False)))
    model.register_parameter("norm", torch.nn.Parameter(torch.tensor([1.5, -2.0])))
    with torch.no_grad():
        model.proj.weight.copy_(torch.arange(6.0).reshape(2, 3) / 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    model.norm.grad = torch.zeros(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    model.load_state_dict(before)
    base = torch.arange(12.0).reshape(3, 4)
    average = OrderedDict(
        transposed=base.t(), columns=base[:, 1:3], half=base.half(), brain=base[1].bfloat16()
    )
    saved = {
        "iterations": 1,
        "epoch": 0,
        "model_state_dict": model.state_dict(),
        "optim_state_dict": optimizer.state_dict(),
        "best_metric": 2.5,
        "is_interval_ckpt": False,
        "gradient_scaler_state_dict": torch.cuda.amp.GradScaler(enabled=False).state_dict(),
        "ema_state_dict": average,
    }
    torch.save(saved, folder / "pytorch_zip.pt")
    torch.save(saved, folder / "pytorch_legacy.pt", _use_new_zipfile_serialization=False)


def main():
    arguments = sys.argv[1:]
    run = with_pytorch if "--pytorch" in arguments else write
    folders = [argument for argument in arguments if argument != "--pytorch"]
    run(Path(folders[0]) if folders else FOLDER)


if __name__ == "__main__":
    main()
