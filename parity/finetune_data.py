"""Training data of parity/finetune.py: texts, prompts with completions, and preference pairs."""

import json

import numpy as np
from mlx_lm.tuner.datasets import TextDataset

from finetune_cases import DPO_BATCH, DPO_STEPS


def story(rng, sentences):
    """Sentences of words inside and outside the tokenizer's vocabulary."""
    pick = lambda words: words[int(rng.integers(len(words)))]
    who = ["the fox", "an old king", "the miller's son", "a girl named Anna", "the café owner"]
    did = ["found", "lost", "wanted", "sold 12 of", "dreamed of", "laughed at"]
    what = ["a golden apple", "the horse", "bread and salt", "his own shadow", "a quiet wood"]
    then = [".", " in the night.", ", and nobody knew why.", "!", " \u2014 or so they said."]
    sentence_texts = (f"{pick(who)} {pick(did)} {pick(what)}{pick(then)}" for _ in range(sentences))
    return " ".join(text[0].upper() + text[1:] for text in sentence_texts)


def write_data(folder, tokenizer):
    """Writes the data files; returns the contents of tokens.json. The sets are not multiples of a
    batch, and a batch contains rows of all lengths."""
    rng = np.random.default_rng(11)
    tokens = {"text": {}, "prompts": {}}
    (folder / "data/prompts").mkdir(parents=True, exist_ok=True)
    write = lambda path, rows: path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    for name, count in (("train", 22), ("valid", 9)):
        rows = [{"text": story(rng, 1 + i % 4 // 2)} for i in range(count)]
        rows[3], rows[5] = {"text": "A fox."}, {"text": story(rng, 4)}
        write(folder / f"data/{name}.jsonl", rows)
        dataset = TextDataset(rows, tokenizer)
        tokens["text"][name] = [dataset.process(row)[0] for row in rows]
        rows = [{"prompt": story(rng, 1), "completion": story(rng, 1)} for i in range(count)]
        write(folder / f"data/prompts/{name}.jsonl", rows)
        tokens["prompts"][name] = []
        for row in rows:
            prompt = tokenizer.encode(row["prompt"])
            answer = tokenizer.encode(row["completion"], add_special_tokens=False)
            ids = prompt + answer + [tokenizer.eos_token_id]
            tokens["prompts"][name].append({"tokens": ids, "offset": len(prompt)})
    return tokens


def write_pairs(tokenizer):
    """Pairs of answers to one question, of different lengths."""
    rng = np.random.default_rng(13)
    pairs = []
    for i in range(12):
        prompt = tokenizer.encode(story(rng, 1))
        pair = {}
        for side, sentences in (("chosen", 1 + i % 2), ("rejected", 1 + i % 3 // 2)):
            answer = tokenizer.encode(story(rng, sentences), add_special_tokens=False)
            ids = prompt + answer + [tokenizer.eos_token_id]
            pair[side] = {"tokens": ids, "first_target": len(prompt)}
        pairs.append(pair)
    order = np.concatenate([rng.permutation(12) for _ in range(3)])
    batches = order[: DPO_STEPS * DPO_BATCH].reshape(DPO_STEPS, DPO_BATCH)
    return {"batches": batches.tolist(), "pairs": pairs}
