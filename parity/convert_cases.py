"""The sources and conversions that parity/convert.py compares."""

import os
from dataclasses import dataclass

from make_checkpoints import SIZES, Case, Size

FULL = os.environ.get("FULL") == "1"

SIZES |= {"small": Size(4, 128, 16), "odd": Size(5, 160, 16), "wide": Size(2, 64, 16)}
SOURCES = [
    Case(
        "untied",
        "small",
        2048,
        flags={"share_input_output_layers": False, "ffn_dim_divisor": 64},
    ),
    # Rows of 160 elements, which are not a multiple of 64 or 128, and of 80, not a multiple of 32.
    # (MLX 0.32.2 cannot unpack an odd number of groups of 16, as in one row of 80: `mx.dequantize`
    # fails in the mode nvfp4. No embedding here has such rows.)
    Case("odd", "odd", 2048, stored="float16", shards=2, flags={"ffn_dim_divisor": 16}),
    # CoreNet's files have 128 more rows than this vocabulary.
    Case("wide", "wide", 32000, flags={"ffn_dim_divisor": 32}, seed=1),
]


@dataclass
class Kind:
    """A conversion, with the options of both programs."""

    name: str
    bits: int | None = None
    group_size: int | None = None
    mode: str | None = None
    dtype: str | None = None

    def keywords(self):
        keywords = {"quantize": self.mode is not None, "dtype": self.dtype}
        if self.mode:
            keywords |= {"q_bits": self.bits, "q_group_size": self.group_size, "q_mode": self.mode}
        return keywords

    def options(self):
        options = {
            "--q-mode": self.mode,
            "--q-bits": self.bits,
            "--q-group-size": self.group_size,
            "--dtype": self.dtype,
        }
        options = [[name, value] for name, value in options.items() if value is not None]
        return ["--quantize"] * (self.mode is not None) + sum(options, [])


ALL_KINDS = [
    Kind("plain"),
    Kind("4-bit", 4, 64, "affine"),
    Kind("8-bit-g32", 8, 32, "affine"),
    Kind("2-bit-g32", 2, 32, "affine"),
    Kind("3-bit", 3, 64, "affine"),
    Kind("5-bit-g32", 5, 32, "affine"),
    Kind("6-bit-g128", 6, 128, "affine"),
    Kind("mxfp4", None, None, "mxfp4"),
    Kind("mxfp8", None, None, "mxfp8"),
    Kind("nvfp4", None, None, "nvfp4"),
    # Differs from every stored dtype.
    Kind("float16", dtype="float16"),
    Kind("bfloat16", dtype="bfloat16"),
    Kind("4-bit-float32", 4, 64, "affine", "float32"),
]
# FULL=1 uses all kinds on all sources, which adds about three minutes.
USUAL = ["plain", "4-bit", "8-bit-g32", "mxfp4"]
KINDS = [kind for kind in ALL_KINDS if FULL or kind.name in USUAL]


def some(*sources):
    """These sources, or all sources with FULL=1."""
    return ("tales", "untied", "odd") if FULL else sources
