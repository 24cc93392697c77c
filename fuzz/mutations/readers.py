"""The readers of the tool: each file that a command reads, with a valid command line."""

from collections import namedtuple

from vocabularies import KINDS

# `file` is mutated as a `form` of damage.FORMS; `inputs` are copied for the command; `outputs` are
# the names that it may write. `also` names what a message may name instead of the file. `valid` is
# false if the command fails with the file as it is, because its model would be a large one.
Reader = namedtuple("Reader", "name file form inputs command outputs also trains stdin valid")

PROMPT = ["--prompt", "Once upon", "--max-tokens", "3", "--quiet"]
SHORT = ["--iters", "1", "--batch-size", "1", "--max-seq-length", "32", "--rank", "2",
         "--num-layers", "1", "--quiet"]
LONGER = ["--iters", "2", *SHORT[2:]]
PRETRAIN = ["pretrain", "--config", "pretrain.toml", "--quiet"]
GENERATE = ["generate", "--model", "model", *PROMPT]
OUT = ("out",)


def reader(file, form, command, inputs="", outputs=(), also=(), trains=False, stdin=None,
           valid=True):
    first = file.split("/")[0]
    inputs = tuple(dict.fromkeys([first, *inputs.split()]))
    name = f"{file} by {command[0]}"
    if command[0] == "tokenizer":
        name = f"{file} by tokenizer train"
    return Reader(name, file, form, inputs, command, tuple(outputs), tuple(also), trains, stdin,
                  valid)


def finetune(data, *more, model="model"):
    return ["finetune", "--model", model, "--data", data, "--adapter-path", "out", *SHORT, *more]


def pretrain(*more):
    return [*PRETRAIN, "--output", "out", *more]


def start_from(folder):
    return ["pretrain", "--start-from", folder, "--tokenizer", "model", "--data", "corpus.jsonl",
            "--output", "out", "--iters", "1", "--batch-size", "1", "--max-seq-length", "16",
            "--learning-rate", "1e-3",
            "--micro-batch-size", "1", "--average-last", "0", "--quiet"]


def convert(source, *more, target="out"):
    return ["convert", source, target, "--quiet", *more]


def models():
    """Every file of a model folder by every command that loads one."""
    for file, form in (("config.json", "json"), ("model.safetensors", "safetensors")):
        path = f"model/{file}"
        # A value of config.json may only contradict the weights.
        also = ("model.safetensors", "tokenizer.json") if form == "json" else ("model: tensor",)
        yield reader(path, form, GENERATE, also=also)
        yield reader(path, form, [*GENERATE, "--dtype", "bfloat16", "--json"], also=also)
        yield reader(path, form, ["info", "model"], also=also)
        yield reader(path, form, ["average", "model", "model", "--output", "out", "--quiet"],
                     outputs=OUT, also=also)
        yield reader(path, form, ["bench", "--model", "model", "--prompt-tokens", "4",
                                  "--max-tokens", "2", "--repeat", "1"], also=also)
        yield reader(path, form, finetune("text"), "text", OUT, also, True)
        yield reader(path, form, ["fuse", "--model", "model", "--adapter-path", "adapter",
                                  "--save-path", "out"], "adapter", OUT, also)
        yield reader(path, form, start_from("model"), "corpus.jsonl", OUT, also, True)
        yield reader(path, form, convert("model", "--quantize", "--q-group-size", "32"), "", OUT, also)
        yield reader(path, form, ["quantize", "model", "out", "--data", "corpus.txt", "--method", "gptq",
                                  "--group-size", "32", "--samples", "2", "--max-seq-length", "8",
                                  "--quiet"], "corpus.txt", OUT, also)
        yield reader(path, form, convert("model", target="out.gguf"), "", ("out.gguf",), also)
        yield reader(path, form, ["convert", "model", "--dry-run"], also=also)
        path, also = f"quantized/{file}", (*also, "quantized: tensor")
        generate = ["generate", "--model", "quantized", *PROMPT]
        yield reader(path, form, generate, also=also)
        yield reader(path, form, [*generate, "--keep-quantized"], also=also)
        yield reader(path, form, ["info", "quantized", "--json"], also=also)
        yield reader(path, form, convert("quantized", "--dequantize"), "", OUT, also)
        yield reader(path, form, finetune("text", "--keep-quantized", model="quantized"), "text",
                     OUT, also, True)
    shards = ["generate", "--model", "shards", *PROMPT]
    index, shard = "shards/model.safetensors.index.json", "shards/model-00001-of-00002.safetensors"
    for command, outputs in ((shards, ()), (convert("shards"), OUT), (["info", "shards"], ())):
        yield reader(index, "json", command, outputs=outputs, also=("model-0000",))
        yield reader(shard, "safetensors", command, outputs=outputs,
                     also=("model.safetensors.index.json", "shards: tensor"))
    hub = "models--org--tales"
    yield reader(f"{hub}/refs/main", "text", ["generate", "--model", hub, *PROMPT], also=(hub,))
    yield reader(f"{hub}/refs/main", "text", ["info", hub], also=(hub,))
    named, main = "local/tales", "cache/models--local--tales/refs/main"
    yield reader(main, "text", ["generate", "--model", named, *PROMPT], also=(named,))
    yield reader(main, "text", ["pull", named, "--quiet"], also=(named,))
    yield reader(main, "text", ["models", "--json"], also=(named,))


def tokenizers():
    for command, inputs, outputs in (
            (GENERATE, "", ()), (finetune("questions", "--mask-prompt"), "questions", OUT),
            (pretrain(), "pretrain.toml corpus.jsonl", OUT),
            (convert("model"), "", OUT), (convert("model", target="out.gguf"), "", ("out.gguf",))):
        for file in ("tokenizer.json", "tokenizer.json", "tokenizer_config.json",
                     "special_tokens_map.json", "generation_config.json"):
            also = ("tokenizer.json",) if file != "tokenizer.json" else ()
            yield reader(f"model/{file}", "json", command, inputs, outputs, also, bool(inputs))
    for kind in KINDS:
        file, named = f"{kind}/tokenizer.json", ["--tokenizer", kind]
        yield reader(file, "json", [*GENERATE, *named], "model")
        yield reader(file, "json", pretrain(*named), "pretrain.toml corpus.jsonl", OUT, (), True)
        yield reader(file, "json", convert("model", *named), "model", OUT)
    named = ["--tokenizer", "tokenizer.model"]
    yield reader("tokenizer.model", "bytes", [*GENERATE, *named], "model")
    yield reader("tokenizer.model", "bytes", convert("model", *named), "model", OUT)
    yield reader("tokenizer.model", "bytes", convert("model", *named, target="out.gguf"), "model",
                 ("out.gguf",))
    yield reader("tokenizer.model", "bytes", pretrain(*named), "pretrain.toml corpus.jsonl model",
                 OUT, (), True)


def sources():
    """Formats of other programs, by `convert`."""
    for file in ("model.gguf", "model.gguf", "q4_0.gguf"):
        yield reader(file, "gguf", convert(file), "", OUT)
        yield reader(file, "gguf", ["convert", file, "--dry-run"])
    by_config = ["--architecture", "model/config.json", "--tokenizer", "model"]
    for file, form in (("weights.pt", "torch"), ("training.pt", "torch"), ("legacy.pt", "bytes"),
                       ("corenet/weights.safetensors", "safetensors")):
        yield reader(file, form, convert(file.split("/")[0], *by_config), "model", OUT,
                     ("corenet: tensor",))
    yield reader("training.pt", "torch", convert("training.pt", "--ema", *by_config), "model", OUT)
    for file in "training.pt", "weights.pt":
        yield reader(file, "torch", pretrain("--start-from", file, "--learning-rate", "1e-3"),
                     "pretrain.toml model corpus.jsonl", OUT, ("--iters",), True)
    yield reader("corenet/config.json", "json", convert("corenet", "--tokenizer", "model"), "model",
                 OUT, ("weights.safetensors", "corenet: tensor"), valid=False)
    for file, form in ("corenet.yaml", "text"), ("model/config.json", "json"):
        yield reader(file, form, convert("legacy.pt", "--architecture", file, "--tokenizer", "model"),
                     "legacy.pt model", OUT, ("legacy.pt", "architecture"), valid=form == "json")


def adapters():
    for folder, weights in (("adapter", "adapters"), ("dora", "adapters"), ("older", "adapters"),
                            ("peft", "adapter_model")):
        for file, form in ("adapter_config.json", "json"), (f"{weights}.safetensors", "safetensors"):
            path = f"{folder}/{file}"
            # A value of the configuration may only contradict the tensors.
            also = (f"{weights}.safetensors",) if form == "json" else (
                "adapter_config.json", f"{folder}: tensor")
            yield reader(path, form, [*GENERATE, "--adapter", folder], "model", (), also)
            yield reader(path, form, ["fuse", "--model", "model", "--adapter-path", folder,
                                      "--save-path", "out", "--quiet"], "model", OUT, also)
            start = ["finetune", "--model", "model", "--data", "text", "--adapter-path", "out",
                     "--start-from", folder, "--iters", "1", "--batch-size", "1", "--quiet",
                     "--max-seq-length", "32"]
            yield reader(path, form, start, "model text", OUT, also, True)
    for line, outputs in (([*GENERATE, "--adapter", "adapter.pt"], ()),
                          (["convert-adapter", "adapter.pt", "out", "--model", "model", "--quiet"],
                           OUT)):
        yield reader("adapter.pt", "torch", line, "model", outputs, ("adapter.pt: tensor",))


def data():
    for folder, more in (("text", []), ("questions", ["--mask-prompt"]), ("chat", ["--mask-prompt"]),
                         ("pairs", ["--dpo", "sigmoid"])):
        for file in "train.jsonl", "valid.jsonl":
            yield reader(f"{folder}/{file}", "jsonl", finetune(folder, *more), "model", OUT, (), True)
    yield reader("text/test.jsonl", "jsonl", finetune("text", "--test"), "model", OUT, (), True)
    yield reader("corpus.txt", "text", ["evaluate", "--model", "model", "--perplexity", "corpus.txt"],
                 "model")
    for name, data, form in (("endings", "endings/test.jsonl", "jsonl"),
                             ("rolling", "rolling/test.parquet", "parquet")):
        command = ["evaluate", "--model", "model", "--task", f"tasks/{name}.yaml", "--data", "tasks",
                   "--quiet"]
        # The definition names the data.
        yield reader(f"tasks/{name}.yaml", "text", command, "model", (), ("tasks",))
        yield reader(f"tasks/{data}", form, command, "model", (), ("tasks",))
    yield reader("corpus.jsonl", "jsonl", ["score", "--model", "model", "--jsonl", "corpus.jsonl",
                                           "--quiet"], "model")
    yield reader("corpus.txt", "text", finetune("corpus.txt"), "model", OUT, (), True)
    for file, form in (("metrics.jsonl", "jsonl"), ("training_logs.txt", "text")):
        yield reader(file, form, ["plot", file, "--output", "out.svg", "--quiet"], "",
                     ("out.svg", "out.png"))
    yield reader("mixture.toml", "toml", ["pretrain", "--config", "mixture.toml", "--quiet", "--output",
                                          "out"], "model corpus.jsonl", OUT, ("--",), True)
    for file, form in (("corpus.txt", "text"), ("corpus.json", "jsonl"), ("corpus.jsonl", "jsonl"),
                       ("corpus.jsonl.gz", "jsonl.gz"), ("corpus.txt.gz", "txt.gz"),
                       ("corpus.jsonl.zst", "jsonl.zst"), ("corpus.txt.zst", "txt.zst"),
                       ("corpus.parquet", "parquet"), ("corpus.parquet", "parquet")):
        yield reader(file, form, pretrain("--data", file, "--iters", "1"), "pretrain.toml model", OUT,
                     (), True)
        yield reader(file, form, pretrain("--data", file, "--iters", "1", "--skip-corrupt"),
                     "pretrain.toml model", OUT, (), True)
        yield reader(file, form, ["tokenizer", "train", "--data", file, "--vocab-size", "300",
                                  "--output", "out"], "", OUT, ("--vocab-size",))


def settings():
    # A value out of range is an error of its option.
    flag = ("--",)
    yield reader("finetune.toml", "toml", ["finetune", "--model", "model", "--config", "finetune.toml",
                                           "--adapter-path", "out", "--quiet"], "model text", OUT, flag,
                 True)
    yield reader("corenet.yaml", "text",
                 ["finetune", "--model", "model", "--data", "text", "--config", "corenet.yaml",
                  "--adapter-path", "out", "--quiet"], "model text", OUT, valid=False)
    more = "model corpus.jsonl"
    yield reader("pretrain.toml", "toml", pretrain(), more, OUT, flag, True)
    yield reader("pretrain.toml", "toml", pretrain("--dry-run"), more, (), flag)
    yield reader("prompt.txt", "text", ["generate", "--model", "model", "--prompt-file", "prompt.txt",
                                        "--max-tokens", "3"], "model", (), ("the prompt has",))
    yield reader("prompt.txt", "text", ["generate", "--model", "model", "--prompt", "-", "--max-tokens",
                                        "3"], "model", (), ("stdin", "standard input", "prompt"),
                 stdin="prompt.txt")
    yield reader("cache.safetensors", "safetensors",
                 [*GENERATE, "--prompt-cache-file", "cache.safetensors"], "model")


def resumed():
    """The state of a run, by `--resume`."""
    for file, form in (("training_state.safetensors", "safetensors"), ("metrics.jsonl", "jsonl"),
                       ("adapters.safetensors", "safetensors"), ("adapter_config.json", "json"),
                       ("run.lock", "text"), ("best/adapters.safetensors", "safetensors")):
        yield reader(f"run/{file}", form,
                     ["finetune", "--model", "model", "--data", "text", "--adapter-path", "run",
                      *LONGER, "--resume"], "model text", ("run",),
                     ("training_state.safetensors", "run"), True)
    yield reader("dpo/reference.safetensors", "safetensors",
                 ["finetune", "--model", "model", "--data", "pairs", "--adapter-path", "dpo", *LONGER,
                  "--dpo", "sigmoid", "--resume"], "model pairs", ("dpo",), (), True)
    for file, form in (("training_state.safetensors", "safetensors"), ("metrics.jsonl", "jsonl"),
                       ("checkpoints/step-000002/model.safetensors", "safetensors"),
                       ("checkpoints/step-000001/config.json", "json"), ("run.lock", "text")):
        yield reader(f"pre/{file}", form, [*PRETRAIN, "--output", "pre", "--resume"],
                     "pretrain.toml model corpus.jsonl", ("pre",), ("step-000002: tensor",), True)


def all_readers():
    """The readers in a fixed order, that a case's number selects from."""
    groups = models, tokenizers, sources, adapters, data, settings, resumed
    return [reader for group in groups for reader in group()]
