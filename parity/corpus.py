"""Reads documents like CoreNet's on-the-fly data set, with Hugging Face's tokenizers and
unicodedata, and writes sequences and counts: `corpus.py FOLDER OPENELM`. OPENELM is the tool, which
trains a tokenizer. OPENELM_TEST_DATA names a folder with llama-tokenizer/tokenizer.json; without
it, the cases with that tokenizer are skipped.

openelm-core/tests/corpus_live.rs reads the same files with the same options and compares.
"""

import gzip
import json
import os
import random
import re
import shutil
import string
import subprocess
import sys
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("the king's daughter went into woods, \"where\" old wolf: 1,024 naïve cafe\u0301 Stra\u00dfe "
         "\u0130stanbul \u1112\u1161\u11ab \u212b \ufb01sh q\u0307\u0323 \u6f22\u5b57 \U0001f999 <s> </s> \u2026 -- "
         "\u0928\u092e\u0938\u094d\u0924\u0947 x\u200by").split(" ")
SPACES = [" "] * 30 + ["  ", "\n", "\n\n", "\t", "\u00a0", " \u2003", "\u001f", "\r\n", "\u0085"]
DROP = str.maketrans("", "", string.punctuation)


def document(chance):
    words = chance.choice([3, 40, 90, 400, 1500])
    text = "".join(chance.choice(WORDS) + chance.choice(SPACES) for _ in range(chance.randint(0, words)))
    return unicodedata.normalize("NFD", text) if chance.random() < 0.2 else text


def cleaned_length(text):
    return len(re.sub(r"\s+", " ", text.lower().translate(DROP).strip()))


def pack(text, name, path):
    if name.endswith(".gz"):
        with gzip.open(path, "wb") as out:
            out.write(text.encode())
    elif name.endswith(".zst"):
        subprocess.run(["zstd", "-q", "-o", path], input=text.encode(), check=True)
    else:
        path.write_bytes(text.encode())


def documents(folder, names, key):
    for name in names:
        path = folder / name
        if name.endswith(".gz"):
            data = gzip.decompress(path.read_bytes())
        elif name.endswith(".zst"):
            data = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
        else:
            data = path.read_bytes()
        if ".txt" in name:
            yield data.decode()
        else:
            for line in data.decode().split("\n"):
                if line.strip():
                    yield json.loads(line)[key]


def run(folder, tokenizer, case):
    """The sequences of one epoch, in order, and the counts."""
    words, length = case["words_per_fragment"], case["sequence_length"]
    count = dict.fromkeys(("documents", "fragments", "dropped_by_characters", "dropped_by_tokens",
                           "tokens", "truncated_tokens", "pads"), 0)
    kept = []
    for text in documents(folder, case["files"], case["text_key"]):
        count["documents"] += 1
        split = text.split(" ")
        for i in range(0, len(split), words):
            piece = " ".join(split[i:i + words])
            count["fragments"] += 1
            if cleaned_length(piece) < case["min_characters"]:
                count["dropped_by_characters"] += 1
                continue
            piece = unicodedata.normalize("NFC", piece)
            tokens = [1] + tokenizer.encode(piece, add_special_tokens=False).ids + [2]
            if len(tokens) < case["min_tokens"]:
                count["dropped_by_tokens"] += 1
                continue
            count["tokens"] += len(tokens)
            kept.append(tokens)
    sequences = []
    if case["assembly"] == "truncate":
        for tokens in kept:
            sequences.append({"tokens": tokens[:length + 1], "starts": [0]})
            count["truncated_tokens"] += len(tokens[length + 1:])
    else:
        row, starts = [], []
        for tokens in kept:
            starts.append(len(row))
            row += tokens
            while len(row) >= length:
                if len(row) > length + 1:
                    sequences.append({"tokens": row[:length + 1], "starts": starts})
                    row, starts = row[length:], [0]
                else:
                    sequences.append({"tokens": row, "starts": starts})
                    row, starts = [], []
        if len(row) > 1:
            sequences.append({"tokens": row, "starts": starts})
    count["pads"] = sum(length + 1 - len(s["tokens"]) for s in sequences)
    return sequences, count


def mixed(folder, tokenizer, case):
    """The first sequences of groups with weights, whose files are divided among readers."""
    streams = []
    for group in case["groups"]:
        shards = max(n for n in range(1, len(group["files"]) + 1) if case["readers"] % n == 0)
        parts = [{**case, "files": group["files"][i::shards], "text_key": group["text_key"]}
                 for i in range(shards if case["shard_files"] else 1)]
        streams.append([iter(run(folder, tokenizer, part)[0]) for part in parts])
    total = sum(group["weight"] for group in case["groups"])
    sequences = []
    for number in range(case["take"]):
        place = number * 0x9E3779B97F4A7C15 % 2**64 / 2**64
        for group, streams_of_group in zip(case["groups"], streams):
            if place < group["weight"] / total:
                break
            place -= group["weight"] / total
        # None of the streams ends.
        sequences.append(next(streams_of_group[number % len(streams_of_group)]))
    return sequences


def train(folder, names, openelm):
    """Trains a tokenizer with the tool, and checks that Hugging Face's reader round-trips texts."""
    output = folder / "tokenizer"
    command = [openelm, "tokenizer", "train", "--vocab-size", "400", "--output", output, "--data"]
    subprocess.run(command + [folder / name for name in names], check=True)
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    assert [tokenizer.token_to_id(piece) for piece in ("<unk>", "<s>", "</s>", "<0x00>", "<0xFF>")] \
        == [0, 1, 2, 3, 258]
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c != 0x2581)
    for text in ["  a  b ", "\n", everything, *documents(folder, names, "text")]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text and 0 not in ids, text[:80]
        assert tokenizer.encode(text).ids == [1] + ids
    return output / "tokenizer.json"


def main():
    folder, openelm = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True)
    chance = random.Random(5)
    names = ["a.jsonl", "b.json.gz", "c.txt", "d.txt.gz"]
    if shutil.which("zstd"):
        names += ["e.jsonl.zst", "f.zst"]
    else:
        print("corpus.py: zstd is missing: its archives are skipped", file=sys.stderr)
    for name in names:
        if ".txt" in name:
            text = "".join(document(chance) for _ in range(12))
        else:
            rows = [{"id": i, "text": document(chance)} for i in range(60)]
            text = "".join(json.dumps(r, ensure_ascii=chance.random() < 0.5) + "\n" for r in rows)
        pack(text, name, folder / name)
    rows = [json.dumps({"content": document(chance)}) for _ in range(40)]
    (folder / "refined.jsonl").write_text("\n\n".join(rows))

    tokenizers = {"tales": ROOT / "openelm-core/tests/fixtures/tales/tokenizer.json"}
    tokenizers["trained"] = train(folder, names, openelm)
    if data := os.environ.get("OPENELM_TEST_DATA"):
        tokenizers["llama"] = Path(data) / "llama-tokenizer/tokenizer.json"
    else:
        print("corpus.py: OPENELM_TEST_DATA is not set: the cases with LLaMA's tokenizer are skipped", file=sys.stderr)
    cases = []
    for label, file in tokenizers.items():
        shutil.copy(file, folder / f"{label}.json")
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        # `</s>` in a document's text does not end the document.
        tokenizer.encode_special_tokens = True
        for assembly in ("truncate", "pack"):
            for key, files, length, words, characters, least in [
                ("text", names, 2048, 2048, 200, 256),
                ("text", names, 128, 100, 200, 64),
                ("text", names, 63, 7, 20, 2),
                ("text", names, 5, 64, 0, 0),
                ("content", ["refined.jsonl"], 512, 300, 200, 256),
            ]:
                case = {"tokenizer": f"{label}.json", "assembly": assembly, "text_key": key,
                        "files": files, "sequence_length": length, "words_per_fragment": words,
                        "min_characters": characters, "min_tokens": least}
                sequences, case["counts"] = run(folder, tokenizer, case)
                case["sequences"] = f"case-{len(cases)}.json"
                (folder / case["sequences"]).write_text(json.dumps(sequences))
                cases.append(case)
            weights = [3.0, 1.0, 0.5]
            lists = [sorted(names)[:-1], ["refined.jsonl"], sorted(names)[-1:]]
            keys = ["text", "content", "text"]
            groups = [{"files": files, "text_key": key, "weight": weight}
                      for files, key, weight in zip(lists, keys, weights)]
            for readers, shard_files in (1, False), (2, True):
                some = groups if not shard_files else groups[:1]
                case = {**case, "sequence_length": 63, "words_per_fragment": 40, "min_characters": 20,
                        "min_tokens": 2, "groups": some,
                        "readers": readers, "shard_files": shard_files, "take": 90,
                        "sequences": f"case-{len(cases)}.json"}
                sequences = mixed(folder, tokenizer, case)
                (folder / case["sequences"]).write_text(json.dumps(sequences))
                cases.append(case)
    (folder / "cases.json").write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main()
