"""Compares `openelm generate --prompts` with mlx-lm's `BatchGenerator`: the greedy texts of 1, 3 and
17 prompts of mixed lengths.

    batch.py FOLDER OPENELM

A text that differs is accepted only if mlx-lm's two most likely tokens, where the texts part, are
within 1e-4; these ties are counted.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
from make_checkpoints import ExactRope
from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load_model
from transformers import AutoTokenizer

TALES = Path(__file__).resolve().parent.parent / "examples/tales"
STORIES = [
    "Once upon a time",
    "Lily",
    "The little dog ran to the park because he wanted to play with the ball. He",
    "One day, Tom and his mom went to the big store. They saw many toys, and Tom",
    "It was",
]
TOKENS, TIE = 40, 1e-4


def prompts(count):
    """The last prompt of 17 has several chunks."""
    texts = [STORIES[i % len(STORIES)] + " big" * (i // len(STORIES)) for i in range(count)]
    if count == 17:
        texts[-1] = STORIES[2] * 9
    return texts


def of_mlx_lm(model, rows, end):
    generator = BatchGenerator(model, stop_tokens=[[end]])
    ids = {uid: [] for uid in generator.insert(rows, [TOKENS] * len(rows))}
    while responses := generator.next_generated():
        for response in responses:
            if response.finish_reason != "stop":
                ids[response.uid].append(response.token)
    generator.close()
    return list(ids.values())


def of_openelm(openelm, folder, texts):
    """The texts, of a batch of all prompts."""
    file = folder / f"{len(texts)}.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    command = [openelm, "generate", "--model", TALES, "--dtype", "float32", "--prompts", file]
    command += ["--batch-size", str(len(texts)), "-n", str(TOKENS), "--quiet"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["text"] for line in output.splitlines()]


def is_tie(model, tokens):
    """True if the two most likely tokens after `tokens` are equally likely."""
    logits = model(mx.array(tokens)[None])[0, -1].astype(mx.float32)
    top = mx.sort(logits)[-2:]
    return (top[1] - top[0]).item() < TIE


def main(folder, openelm):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, config = load_model(TALES)
    model.set_dtype(mx.float32)
    for layer in model.layers:
        layer.attn.rope = ExactRope(config["head_dim"], config["rope_freq_constant"])
    tokenizer = AutoTokenizer.from_pretrained(TALES)
    ties = texts_compared = 0
    for count in (1, 3, 17):
        texts = prompts(count)
        rows = [[1, *tokenizer.encode(text, add_special_tokens=False)] for text in texts]
        theirs = of_mlx_lm(model, rows, 2)
        ours = of_openelm(openelm, folder, texts)
        assert len(ours) == count
        for prompt, expected, found in zip(rows, theirs, ours):
            texts_compared += 1
            decode = lambda ids: tokenizer.decode(prompt + ids)[len(tokenizer.decode(prompt)) :]
            if decode(expected) == found:
                continue
            same = next(n for n in range(len(expected) + 1) if not found.startswith(decode(expected[:n])))
            if not is_tie(model, prompt + expected[: same - 1]):
                sys.exit(f"parity: {count} prompts: expected {decode(expected)!r}, found {found!r}")
            ties += 1
    print(f"batches: {texts_compared} texts equal, {ties} of them but for a tie")


if __name__ == "__main__":
    main(*sys.argv[1:])
