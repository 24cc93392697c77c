"""Measures the machine's limits: the speed at which two threads read memory and multiply matrices,
and the time of OpenELM-270M's weight products through openelm-core's BLAS.

    roofline.py LIBRARY WEIGHTS

WEIGHTS is the model's safetensors file, of which only the shapes are read; OPENBLAS_NUM_THREADS
sets the number of threads. Prints one JSON object. MLX is not used; numpy only holds the buffers.
"""

import ctypes
import json
import os
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112
# Positions per prefill step of openelm-core on a CPU.
CHUNK = 128


def matrices(path):
    """[out, in] of each linear layer; the head (the embedding) comes last."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    shapes = {name: tuple(entry.get("shape", ())) for name, entry in header.items()}
    head = shapes.pop("transformer.token_embeddings.weight")
    return [shape for shape in shapes.values() if len(shape) == 2] + [head]


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


class Blas:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        integer, real, data = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        self.sgemm = self.library.cblas_sgemm
        self.sgemm.restype = None
        self.sgemm.argtypes = [integer] * 6 + [real, data, integer, data, integer, real, data, integer]
        self.sdot = self.library.scipy_cblas_sdot
        self.sdot.restype = real
        self.sdot.argtypes = [integer, data, integer, data, integer]

    def version(self):
        describe = self.library.scipy_openblas_get_config
        describe.restype = ctypes.c_char_p
        return describe().decode().split()[1]

    def linear(self, rows, w, x, y):
        """y [rows, out] = x [rows, in] times the transpose of w [out, in], as MLX calls it."""
        out, width = w.shape
        self.sgemm(
            ROW_MAJOR, NO_TRANS, TRANS, rows, out, width,
            1.0, pointer(x), width, pointer(w), width, 0.0, pointer(y), out,
        )


def fastest(times, run):
    """Seconds of the fastest run, because a limit is the best possible value."""

    def timed():
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return min(timed() for _ in range(times))


def main(library, path):
    blas = Blas(library)
    threads = int(os.environ["OPENBLAS_NUM_THREADS"])
    pool = ThreadPoolExecutor(threads)
    shapes = matrices(path)
    sizes = [out * width for out, width in shapes]
    weights = np.full(sum(sizes), 0.02, dtype=np.float32)
    ends = np.cumsum(sizes)
    layers = [weights[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes)]
    x = np.full(512 * 5120, 0.01, dtype=np.float32)
    y = np.zeros(CHUNK * max(out for out, _ in shapes), dtype=np.float32)
    y_peak = np.zeros(512 * 4096, dtype=np.float32)
    w_peak = weights[: 4096 * 1280].reshape(4096, 1280)

    parts = np.array_split(weights, threads)

    def decode_step():
        for w in layers:
            blas.linear(1, w, x, y)

    def prefill_chunk():
        for w in layers[:-1]:
            blas.linear(CHUNK, w, x, y)

    def read_all():
        # OpenBLAS runs `sdot` on the calling thread, and ctypes releases Python's lock.
        list(pool.map(lambda part: blas.sdot(part.size, pointer(part), 1, pointer(part), 1), parts))

    # One long matrix is read in several streams in parallel, which is faster on some machines.
    long = weights[: weights.size // 1280 * 1280].reshape(-1, 1280)
    y_long = np.zeros(len(long), dtype=np.float32)
    read = min(fastest(8, read_all), fastest(8, lambda: blas.linear(1, long, x, y_long)))
    peak = fastest(8, lambda: blas.linear(512, w_peak, x, y_peak))
    result = {
        "blas": blas.version(),
        "weight_bytes": weights.nbytes,
        "layer_parameters": int(ends[-2]),
        "read_bytes_per_second": weights.nbytes / read,
        "sgemm_flop_per_second": 2 * 512 * 4096 * 1280 / peak,
        "decode_products_seconds": fastest(5, decode_step),
        "prefill_products_seconds_per_token": fastest(3, prefill_chunk) / CHUNK,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
