"""Compares `openelm score` with lm-eval 0.4.13 and mlx-lm's model class for it.

    evaluate.py OPENELM FOLDER [MODEL...]

OPENELM is the tool; FOLDER gets a random OpenELM-270M, once. The models are examples/tales, MODEL
and the random one. OPENELM_TEST_DATA names a folder with eval/{ARC-Easy,ARC-Challenge,piqa}.jsonl
and llama-tokenizer/tokenizer.json. QUESTIONS is the number of questions per task, by default 100.

questions  lm-eval's prompts of three tasks: mlx-lm's `MLXLM.loglikelihood`
encoding   white space between context and continuation, empty and long contexts, whole texts in
           windows: lm-eval's `TemplateLM.loglikelihood` and `get_rolling_token_windows`, with
           mlx-lm's network on each sequence alone
"""

import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# The preloaded BLAS is for this process, not for the programs started by it.
os.environ.pop("LD_PRELOAD", None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import mlx.core as mx
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from make_checkpoints import Case, ExactRope, config_of, write_checkpoint
from mlx_lm.evaluate import MLXLM
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
TALES = ROOT / "examples/tales"
BOUND = 1e-3  # of a log-likelihood, in nats
TOKENS = 1000  # of a text; the bound of longer ones, whose rounding adds up, is in proportion
TIE = 1e-3  # between the logits of two tokens
LM_EVAL = "0.4.13"
BOS, EOS = 1, 2
TASKS = ("ARC-Easy", "ARC-Challenge", "piqa")


def questions(data, task, count):
    """The (context, continuation) pairs of a task: lm-eval's prompts without examples."""
    for line in (data / f"{task}.jsonl").read_text().splitlines()[:count]:
        row = json.loads(line)
        for choice in row["choices"]["text"]:
            yield f"Question: {row['question']}\nAnswer:", f" {choice}"


def random_270m(folder, tokenizer):
    if not (folder / "complete").exists():
        case = Case("evaluate", "270M", 32000, seed=23)
        write_checkpoint(case, config_of(case), folder)
        (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
        settings = (TALES / "tokenizer_config.json").read_bytes()
        (folder / "tokenizer_config.json").write_bytes(settings)
        (folder / "complete").touch()
    return folder


def scores(openelm, model, rows):
    """The results of `openelm score` for the rows."""
    command = [openelm, "score", "--model", model, "--dtype", "float32", "--quiet"]
    rows = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run(command, input=rows, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"parity: openelm score: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


class Reference(TemplateLM):
    """lm-eval's encoding and truncation, and mlx-lm's network for each sequence alone."""

    def __init__(self, lm, folder, context):
        super().__init__()
        self.model, self.context = lm._model, context
        # Transformers' class for LLaMA replaces parts of tokenizer.json: a space at the beginning of
        # a text is then no token of its own, as it is with SentencePiece.
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    @property
    def eot_token_id(self):
        return EOS

    @property
    def prefix_token_id(self):
        return BOS

    def tok_encode(self, string, add_special_tokens=True, **_):
        ids = self.tokenizer.encode(string, add_special_tokens=False).ids
        return [BOS, *ids] if add_special_tokens else ids

    def _loglikelihood_tokens(self, requests, **_):
        return [self.score(context, continuation)[:2] for _, context, continuation in requests]

    def score(self, context, continuation):
        """The log-likelihood, the greedy flag, and the smallest distance of a token's logit from
        the largest other one."""
        ids = (context + continuation)[-(self.context + 1) :]
        logits = self.model(mx.array(ids[:-1])[None])[0].astype(mx.float32)
        logits = np.array(logits[-len(continuation) :]).astype(np.float64)
        own = logits[np.arange(len(continuation)), continuation]
        total = (own - np.logaddexp.reduce(logits, axis=1)).sum()
        others = logits.copy()
        others[np.arange(len(continuation)), continuation] = -np.inf
        margins = own - others.max(axis=1)
        return float(total), bool((margins >= 0).all()), float(np.abs(margins).min())

    def loglikelihood_rolling(self, requests, **_):
        return [self.rolling(*request.args) for request in requests]

    def rolling(self, text, window=None, stride=None):
        window = window or self.context
        tokens = self.tok_encode(text, add_special_tokens=False)
        pairs = get_rolling_token_windows(
            tokens, self.prefix_token_id, window, window - (stride or window) + 1
        )
        return sum(self.score(*make_disjoint_window(pair))[0] for pair in pairs)

    def generate_until(self, requests, **_):
        raise NotImplementedError


def requests_of(pairs):
    return [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(pairs)
    ]


class Comparison:
    def __init__(self):
        self.failed = False

    def check(self, name, pairs, found, expected, margin):
        """Compares results by request; `margin` computes a request's smallest distance to a tie."""
        differences = [abs(f["logprob"] - e[0]) for f, e in zip(found, expected, strict=True)]
        worst = int(np.argmax(differences))
        flags = [i for i, (f, e) in enumerate(zip(found, expected)) if f["is_greedy"] != e[1]]
        print(
            f"{name:<34} {len(found):>5} requests  largest difference {differences[worst]:.1e}"
            f" of {expected[worst][0]:.2f}  greedy {sum(e[1] for e in expected)},"
            f" {len(flags)} differ",
            flush=True,
        )
        for i, difference in enumerate(differences):
            if not difference <= BOUND * max(1, found[i]["tokens"] / TOKENS):
                self.fail(f"{name}: {pairs[i]!r}: {found[i]} against {expected[i]}")
        for i in flags:
            distance = margin(i)
            print(f"  {name}: {pairs[i]!r}: a tie within {distance:.1e}")
            if not distance <= TIE:
                self.fail(f"{name}: {pairs[i]!r}: the greedy flags differ without a tie")

    def fail(self, text):
        self.failed = True
        print(f"parity: {text}", file=sys.stderr)


def encoding_cases(data, context):
    """Pairs that lm-eval encodes with care, and a context for the truncation."""
    story = " ".join(row[0] for row in questions(data, "ARC-Easy", 60))
    long = story * math.ceil(8 * context / len(story))
    pairs = [
        ("The king said ", "I am the king."),
        ("The king said \n", " I am the king."),
        ("The king said\u00a0\t", "I am the king."),
        ("The king", "dom was large."),
        ("  ", "The king"),
        ("", "The king said: \u00c9\u4e16"),
        ("", " The king"),
        ("a</s>b", "</s>"),
        ("1 + 1 = ", "2"),
    ]
    return pairs + [(long[:at], end) for at in (1000, len(long)) for end in (" yes", " he went home")]


def compare(openelm, folder, data, comparison, count):
    lm = MLXLM(str(folder))
    lm._model.set_dtype(mx.float32)
    config = json.loads((folder / "config.json").read_text())
    reference = Reference(lm, folder, config["max_context_length"])
    for layer in lm._model.layers:
        layer.attn.rope = ExactRope(config["head_dim"], config["rope_freq_constant"])

    for task in TASKS:
        pairs = list(questions(data, task, count))
        rows = [{"context": context, "continuation": end} for context, end in pairs]
        found = scores(openelm, folder, rows)
        expected = lm.loglikelihood(requests_of(pairs))
        def margin(i):
            context, continuation = reference._encode_pair(*pairs[i])
            return reference.score(context, continuation)[2]
        comparison.check(f"{folder.name} {task}", pairs, found, expected, margin)

    pairs = encoding_cases(data, reference.context)
    rows = [{"context": context, "continuation": end} for context, end in pairs]
    found = scores(openelm, folder, rows)
    expected = reference.loglikelihood(requests_of(pairs), disable_tqdm=True)
    short = [(context[-40:], end) for context, end in pairs]
    comparison.check(f"{folder.name} encoding", short, found, expected, lambda i: math.inf)
    if not found[-1]["truncated"] > 0:
        comparison.fail(f"{folder.name}: the longest context is not truncated")

    texts = [pairs[-1][0][: 6 * reference.context], "Once upon a time there was a king."]
    found = scores(openelm, folder, [{"text": text} for text in texts])
    expected = [(reference.rolling(text), row["is_greedy"]) for text, row in zip(texts, found)]
    short = [text[:40] for text in texts]
    comparison.check(f"{folder.name} texts", short, found, expected, lambda i: math.inf)


def main(openelm, folder, *models):
    if version("lm_eval") != LM_EVAL:
        sys.exit(f"parity: expected lm-eval {LM_EVAL}, found {version('lm_eval')}")
    if not (data := os.environ.get("OPENELM_TEST_DATA")):
        sys.exit("parity: OPENELM_TEST_DATA is not set: it names a folder with eval/ and llama-tokenizer/")
    mx.set_default_device(mx.cpu)
    data = Path(data)
    models = [TALES, *map(Path, models)]
    models.append(random_270m(Path(folder) / "270M", data / "llama-tokenizer/tokenizer.json"))
    comparison = Comparison()
    for model in models:
        compare(openelm, model, data / "eval", comparison, int(os.environ.get("QUESTIONS", "100")))
    sys.exit(1 if comparison.failed else 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
