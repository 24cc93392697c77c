"""The runs that parity/finetune.py compares."""

from dataclasses import dataclass, field

import mlx.optimizers as optim

# Cases with mlx-lm's mask that are always made; FULL=1 makes all.
BOTH_MASKS = ["lora", "lora-prompts", "full"]
STEPS, BATCH, DPO_STEPS, DPO_BATCH = 20, 4, 10, 3
LORA = {"rank": 4, "dropout": 0.0, "scale": 10.0}
# Keys of the last layers are relative to the layer, other keys to the model.
SOME_KEYS = ["attn.qkv_proj", "ffn.proj_2", "transformer.token_embeddings"]
OPTIMIZERS = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
    "lion": optim.Lion,
}
COSINE = {"name": "cosine_decay", "arguments": [3e-4, 12, 1e-5], "warmup": 5, "warmup_init": 1e-6}


@dataclass
class Case:
    """One run. `settings` are the optimizer's; missing ones are MLX's defaults."""

    name: str
    type: str = "lora"
    optimizer: str = "adam"
    settings: dict = field(default_factory=dict)
    # Low enough that rounding differences do not grow within 20 steps.
    learning_rate: float = 2e-4
    schedule: dict | None = None
    layers: int = 3
    keys: list | None = None
    base: str = "base"
    data: str = "text"
    accumulate: int = 1
    # Start with a nonzero B, so that A trains from the first step.
    random_b: bool = False
    mask: str = "mlx-lm"


CASES = [
    Case("lora"),
    Case("lora-b", layers=-1, random_b=True),
    Case("lora-keys", keys=SOME_KEYS, random_b=True),
    Case("lora-prompts", data="prompts"),
    Case("lora-accumulate", accumulate=2),
    Case("lora-cosine", schedule=COSINE),
    Case("dora", type="dora"),
    Case("dora-keys", type="dora", keys=SOME_KEYS, random_b=True),
    Case("full", type="full", learning_rate=1e-4, layers=2),
    Case("qlora", base="base-4bit"),
    Case("qlora-keys", base="base-4bit", keys=SOME_KEYS, random_b=True),
    Case("qdora", base="base-4bit", type="dora", random_b=True),
    Case("adam-corrected", settings={"bias_correction": True}),
    Case("adamw", optimizer="adamw", settings={"weight_decay": 0.1}, random_b=True),
    Case("sgd", optimizer="sgd", learning_rate=0.005, random_b=True),
    # As in mlx-lm: relative steps, so the learning rate is only reported.
    Case("adafactor", optimizer="adafactor", type="full", layers=1),
    Case("lion", optimizer="lion", settings={"weight_decay": 0.05}, learning_rate=5e-5),
]
