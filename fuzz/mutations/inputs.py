"""Makes a small valid input of each kind: `make(openelm, folder)`."""

import gzip
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import containers
import vocabularies
from process import environment

TALE = ("Once upon a time there was a king who had a daughter. She went into the wood, "
        "and there she met an old wolf who said nothing at all.")
ENDINGS = """task: endings
dataset_path: endings
test_split: test
output_type: multiple_choice
doc_to_text: "{{sentence}}"
doc_to_choice: "{{endings}}"
doc_to_target: "{{right}}"
num_fewshot: 1
metric_list:
  - metric: acc
"""
ROLLING = """task: rolling
dataset_path: rolling
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
"""
PRETRAIN = """data = ["corpus.jsonl"]
tokenizer = "model"
max-seq-length = 16
batch-size = 2
micro-batch-size = 1
iters = 2
warmup = 1
shuffle = 4
save-every = 1
keep-checkpoints = 2
average-last = 2
learning-rate = 3e-3
weight-decay = 0.1
packing = "pack"
steps-per-report = 1
[model]
num_transformer_layers = 2
model_dim = 32
head_dim = 16
num_gqa_groups = 2
qkv_multipliers = [0.5, 1.0]
ffn_multipliers = [0.5, 2.0]
ffn_dim_divisor = 32
max_context_length = 64
"""
MIXTURE = PRETRAIN.replace('data = ["corpus.jsonl"]\n', "").replace("[model]", """interleave = 2
shard-files = true
clean-text = true
corenet-losses = true
shuffle = 0
[[data]]
files = ["corpus.jsonl"]
text-key = "text"
format = "jsonl"
weight = 1.5
[model]""").replace("shuffle = 4\n", "")
METRICS = """{"event": "step", "iteration": 1, "train_loss": 5.5, "z_loss": 0.01, "learning_rate": 1e-4}
{"event": "validation", "iteration": 1, "val_loss": 5.25}
{"event": "step", "iteration": 2, "train_loss": 5.0, "z_loss": 0.01, "learning_rate": 2e-4}
"""
LOG = """2024-03-01 12:00:00 - INFO    - Training epoch 0
2024-03-01 12:00:01 - LOGS    - Epoch:   0 [       1/  350000], loss: {'total_loss': 10.5213, \
'ce_loss': 10.5101, 'z_loss': 0.0112}, LR: [1e-06, 1e-06], Avg. batch load time: 0.123
2024-03-01 12:00:02 - LOGS    - Epoch:   0 [     501/  350000], loss: {'total_loss': 7.25, \
'ce_loss': 7.2388, 'z_loss': 0.0112}, LR: [0.000531, 0.000531], Avg. batch load time: 0.123
"""
FINETUNE = """data = "text"
iters = 1
batch-size = 1
max-seq-length = 32
rank = 2
scale = 20.0
num-layers = 1
learning-rate = 1e-4
optimizer = "adamw"
weight-decay = 0.01
save-every = 1
steps-per-eval = 1
val-batches = 1
steps-per-report = 1
"""
YAML = """taskname: '+ OpenELM'
common:
  vocab: &vocab_size 32128
model:
  language_modeling:
    name: "general_gpt"
    general_gpt:
      model_name: "OpenELM-270M"
      vocab_size: *vocab_size
      max_context_length: 2048
"""
ROWS = {
    "text": lambda i: {"text": f"{i} {TALE[:40 + i]}"},
    "questions": lambda i: {"prompt": f"{i} Who met the wolf?", "completion": "The daughter."},
    "chat": lambda i: {"messages": [{"role": "system", "content": "Answer."},
                                    {"role": "user", "content": f"{i} Who?"},
                                    {"role": "assistant", "content": "The king."}]},
    "pairs": lambda i: {"prompt": f"{i} Who?", "chosen": "The king.", "rejected": "Nobody."},
}
# Options of a short fine-tuning run.
SHORT = ["--iters", "1", "--batch-size", "1", "--max-seq-length", "32", "--rank", "2",
         "--num-layers", "1", "--quiet"]


def make(openelm, folder):
    """Fills `folder`; a command that fails is an error of this harness or of the tool."""
    folder = Path(folder)

    def tool(*command):
        done = subprocess.run([openelm, *map(str, command)], cwd=folder, env=environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"mutations: cannot make the inputs: openelm {' '.join(map(str, command))}"
                             f"\n{done.stderr}")

    texts(folder)
    tool("tokenizer", "train", "--data", "corpus.txt", "--vocab-size", "300", "--output", "model")
    tool("pretrain", "--config", "pretrain.toml", "--output", "first", "--quiet")
    shutil.copytree(folder / "first/model", folder / "model", dirs_exist_ok=True)
    shutil.rmtree(folder / "first")
    (folder / "model/generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2}\n')
    (folder / "model/special_tokens_map.json").write_text(
        '{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}}\n')
    tool("convert", "model", "shards", "--max-shard-size", "60KB")
    tool("convert", "model", "quantized", "--quantize", "--q-group-size", "32")
    tool("convert", "model", "model.gguf", "--gguf-type", "f16")
    tool("convert", "model", "q4_0.gguf", "--gguf-type", "q4_0")
    tool("cache-prompt", "--model", "model", "--prompt", "Once upon", "--prompt-cache-file",
         "cache.safetensors", "--quiet")
    other_formats(folder)
    more_tokenizers(folder)
    hub(folder)
    tool("finetune", "--model", "model", "--data", "text", "--adapter-path", "run", *SHORT)
    adapter(folder, "dora", tool, "--fine-tune-type", "dora")
    adapter(folder, "adapter", tool)
    peft(folder)
    corenet_adapter(folder)
    older(folder)
    tool("finetune", "--model", "model", "--data", "pairs", "--adapter-path", "dpo", "--dpo",
         "sigmoid", *SHORT)
    tool("pretrain", "--config", "pretrain.toml", "--output", "pre", "--quiet")


def texts(folder):
    for name, row in ROWS.items():
        for file, count in ("train.jsonl", 6), ("valid.jsonl", 2), ("test.jsonl", 2):
            (folder / name).mkdir(exist_ok=True)
            lines = "".join(json.dumps(row(i)) + "\n" for i in range(count))
            (folder / name / file).write_text(lines)
    lines = "".join(json.dumps({"text": f"{i} {TALE}"}) + "\n" for i in range(12))
    plain = "\n".join(f"{i} {TALE}" for i in range(12))
    (folder / "corpus.jsonl").write_text(lines)
    (folder / "corpus.json").write_text(lines)
    (folder / "corpus.txt").write_text(plain)
    for name, data in ("corpus.jsonl", lines), ("corpus.txt", plain):
        (folder / f"{name}.gz").write_bytes(gzip.compress(data.encode(), mtime=0))
        (folder / f"{name}.zst").write_bytes(containers.zstd(data.encode()))
    rows = [f"{i} {TALE}".encode() for i in range(12)]
    (folder / "corpus.parquet").write_bytes(containers.parquet(rows))
    tasks(folder / "tasks", rows)
    (folder / "prompt.txt").write_text("Once upon a time")
    (folder / "pretrain.toml").write_text(PRETRAIN)
    (folder / "finetune.toml").write_text(FINETUNE)
    (folder / "mixture.toml").write_text(MIXTURE)
    (folder / "metrics.jsonl").write_text(METRICS)
    (folder / "training_logs.txt").write_text(LOG)
    (folder / "corenet.yaml").write_text(YAML)


def tasks(folder, rows):
    """Definitions of tasks, with their data sets beside them."""
    for name in "endings", "rolling":
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "endings.yaml").write_text(ENDINGS)
    question = {"sentence": "Once upon a", "endings": ["time.", "spoon."], "right": 0}
    lines = "".join(json.dumps(question) + "\n" for _ in range(4))
    (folder / "endings" / "test.jsonl").write_text(lines)
    (folder / "rolling.yaml").write_text(ROLLING)
    (folder / "rolling" / "test.parquet").write_bytes(containers.parquet(rows[:3]))


def adamw(weights):
    """AdamW's state after a step, in CoreNet's order: matrices, then norms, each by module."""
    parts = ("attn.qkv_proj", "attn.q_norm", "attn.k_norm", "attn.out_proj", "ffn.proj_1",
             "ffn.proj_2", "ffn_norm", "attn_norm")

    def place(name):
        if name.startswith("layers."):
            _, layer, part = name.removesuffix(".weight").split(".", 2)
            return int(layer), parts.index(part)
        return (-1, 0) if name.startswith("token_embeddings") else (len(weights), 0)

    names = sorted(weights, key=place)
    groups = [[n for n in names if len(weights[n].shape) == dims] for dims in (2, 1)]
    numbers = range(len(names))
    moment = {n: containers.Tensor(weights[n].shape, bytes(len(weights[n].storage.data)))
              for n in names}
    one = struct.pack("<f", 1.0)
    state = {i: {"step": containers.Tensor((), one), "exp_avg": moment[n], "exp_avg_sq": moment[n]}
             for i, n in enumerate(sum(groups, []))}
    split = len(groups[0])
    return {"state": state, "param_groups": [{"lr": 1e-3, "params": list(numbers[:split])},
                                             {"lr": 1e-3, "params": list(numbers[split:])}]}


def other_formats(folder):
    """PyTorch files, CoreNet's MLX folder and a SentencePiece model."""
    weights = (folder / "model/model.safetensors").read_bytes()
    named = {name: containers.Tensor(shape, data)
             for name, _, shape, data in containers.tensors(weights)}
    plain = {name.removeprefix("transformer."): tensor for name, tensor in named.items()}
    (folder / "weights.pt").write_bytes(containers.torch_zip(*containers.torch_pickle(named)))
    training = {"epoch": 1, "iterations": 1, "model_state_dict": plain, "ema_state_dict": plain,
                "optim_state_dict": adamw(plain)}
    (folder / "training.pt").write_bytes(containers.torch_zip(*containers.torch_pickle(training)))
    (folder / "legacy.pt").write_bytes(containers.torch_legacy(plain))
    header, data = containers.read_safetensors(weights)
    header = {name.removeprefix("transformer."): tensor for name, tensor in header.items()}
    (folder / "corenet").mkdir()
    (folder / "corenet/weights.safetensors").write_bytes(containers.write_safetensors(header, data))
    (folder / "corenet/config.json").write_text('{"model_name": "OpenELM-270M"}\n')
    vocabulary = json.loads((folder / "model/tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.model").write_bytes(
        containers.sentencepiece(containers.pieces_of(vocabulary)))


def more_tokenizers(folder):
    for name, made in vocabularies.KINDS.items():
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_text(json.dumps(made()))


def hub(folder):
    """A repository's folder in the Hugging Face Hub cache, and a cache."""
    repository = folder / "models--org--tales"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0123abcd")
    shutil.copytree(folder / "model", repository / "snapshots/0123abcd")
    # A cache, for names of repositories.
    repository = folder / "cache/models--local--tales"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(10 * "0123")
    shutil.copytree(folder / "model", repository / "snapshots" / (10 * "0123"))


def adapter(folder, name, tool, *options):
    """An adapter alone, in mlx-lm's layout."""
    tool("finetune", "--model", "model", "--data", "text", "--adapter-path", "trained", *SHORT,
         *options)
    (folder / name).mkdir()
    for file in "adapter_config.json", "adapters.safetensors":
        os.replace(folder / "trained" / file, folder / name / file)
    shutil.rmtree(folder / "trained")


def transposed(values, rows, columns):
    """The transpose of a matrix of float32."""
    return b"".join(values[4 * (r * columns + c):4 * (r * columns + c) + 4]
                    for c in range(columns) for r in range(rows))


def corenet_adapter(folder):
    """The LoRA adapter in CoreNet's layout, a file of PyTorch."""
    named, made = {}, (folder / "adapter/adapters.safetensors").read_bytes()
    for name, _, (rows, columns), old in containers.tensors(made):
        name = name.removeprefix("transformer.")
        for ours, theirs in (".lora_a", ".lora_A.lora.weight"), (".lora_b", ".lora_B.lora.weight"):
            name = name.replace(ours, theirs)
        named[name] = containers.Tensor((columns, rows), transposed(old, rows, columns))
    (folder / "adapter.pt").write_bytes(containers.torch_zip(*containers.torch_pickle(named)))


def peft(folder):
    """The LoRA adapter in PEFT's layout: transposed matrices by other names."""
    header, data, made = {}, b"", (folder / "adapter/adapters.safetensors").read_bytes()
    for name, kind, (rows, columns), old in containers.tensors(made):
        name = name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight")
        turned = transposed(old, rows, columns)
        header[f"base_model.model.{name}"] = {"dtype": kind, "shape": [columns, rows],
                                   "data_offsets": [len(data), len(data) + len(turned)]}
        data += turned
    (folder / "peft").mkdir()
    made = containers.write_safetensors(header, data)
    (folder / "peft/adapter_model.safetensors").write_bytes(made)
    (folder / "peft/adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 16,
        "lora_dropout": 0.0, "bias": "none", "use_rslora": False, "use_dora": False,
        "target_modules": ["qkv_proj", "out_proj", "proj_1", "proj_2"], "rank_pattern": {},
        "alpha_pattern": {}, "fan_in_fan_out": False, "init_lora_weights": True}))


def older(folder):
    """The LoRA adapter with the settings of an older mlx-lm."""
    shutil.copytree(folder / "adapter", folder / "older")
    (folder / "older/adapter_config.json").write_text(json.dumps({
        "model": "model", "train": True, "use_dora": False, "lora_layers": 1, "iters": 1,
        "lora_parameters": {"keys": ["attn.qkv_proj", "attn.out_proj", "ffn.proj_1", "ffn.proj_2"],
                            "rank": 2, "alpha": 40.0, "scale": 20.0, "dropout": 0.0}}))
