"""Compares `openelm serve` with `openelm evaluate`, by lm-eval 0.4.13 and the `openai` client.

    server.py OPENELM [FOLDER [MODEL...]]

OPENELM is the tool; FOLDER gets tasks and results, and without it only the client is tried. The
models are examples/tales and MODEL.
OPENELM_TEST_DATA names a folder with eval/{ARC-Easy,piqa}.jsonl. QUESTIONS is the number of
questions per task, by default 100.

client    texts, streams, log-probabilities, structured output and errors of the `openai` package
lm-eval   the accuracies of lm-eval's `local-completions` are those of `openelm evaluate`; a task that
          generates text runs with the server's tokenizer
"""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OPENAI_API_KEY", "none")

import openai

ROOT = Path(__file__).resolve().parent.parent
TALES = ROOT / "examples/tales"
LM_EVAL = "0.4.13"
TASKS = {"ARC-Easy": "arc_easy", "piqa": "piqa"}
CHOICES = """task: local_{name}
dataset_path: {name}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices.text}}}}"
doc_to_target: "{{{{choices.label.index(answerKey)}}}}"
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 1.0
"""
GENERATED = """task: local_generated
dataset_path: arc_easy
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "x"
generation_kwargs:
  until: ["."]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
metadata:
  version: 1.0
"""


class Server:
    """`openelm serve` with a model, until the end of the block."""

    def __init__(self, openelm, model):
        command = [openelm, "serve", "--model", model, "--dtype", "float32", "--port", "0"]
        self.process = subprocess.Popen([*command, "--log-level", "warn"], stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        found = re.fullmatch(r"serving (.*) at (http://\S+)\n", line)
        if not found:
            sys.exit(f"parity: openelm serve: {line}")
        self.name, self.address = found.groups()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit(f"parity: openelm serve: exit code {self.process.returncode}")


def write_tasks(folder, data, count):
    """The tasks of both programs: the first questions, and their definitions."""
    for file, name in TASKS.items():
        lines = (data / f"{file}.jsonl").read_text().splitlines(keepends=True)
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "test.jsonl").write_text("".join(lines[:count]))
        (folder / f"{name}.yaml").write_text(CHOICES.format(name=name))
    (folder / "generated.yaml").write_text(GENERATED)


def evaluated(openelm, model, folder):
    """The accuracies of `openelm evaluate`."""
    command = [openelm, "evaluate", "--model", model, "--dtype", "float32", "--data", ".", "--json", "-q"]
    for name in TASKS.values():
        command += ["--task", f"{name}.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"parity: openelm evaluate: {done.stderr}")
    return accuracies(json.loads(done.stdout)["results"])


def accuracies(results):
    return {task: (values["acc,none"], values["acc_norm,none"]) for task, values in results.items()}


def lm_eval(server, model, folder, tasks, more):
    """The results of lm-eval's `local-completions`."""
    args = f"base_url={server.address}/v1/completions,model={server.name},num_concurrent=2,max_length=512,{more}"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", args,
               "--include_path", ".", "--tasks", tasks, "--batch_size", "8", "--output_path", "results"]
    before = set((folder / "results").rglob("results_*.json"))
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    after = set((folder / "results").rglob("results_*.json")) - before
    if done.returncode or len(after) != 1:
        sys.exit(f"parity: lm-eval: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(after.pop().read_text())["results"]


def compare(openelm, model, folder, server):
    """True if all accuracies are equal."""
    expected = evaluated(openelm, model, folder)
    tasks = ",".join(f"local_{name}" for name in TASKS.values())
    # lm-eval encodes, with BOS, and sends token ids: its texts of tokens are not lossless.
    tokenizer = f"tokenizer_backend=huggingface,tokenizer={model},add_bos_token=True"
    found = accuracies(lm_eval(server, model, folder, tasks, tokenizer))
    print(f"{server.name}: lm-eval {found}, evaluate {expected}", flush=True)
    generated = lm_eval(server, model, folder, "local_generated", "tokenizer_backend=auto")
    assert "exact_match,none" in generated["local_generated"], generated
    return found == expected


def check_client(server):
    """Uses the official client; an assertion fails otherwise."""
    client = openai.OpenAI(base_url=f"{server.address}/v1", max_retries=0)
    assert [model.id for model in client.models.list()] == [server.name]
    ask = {"model": server.name, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**ask, logprobs=2)
    choice = whole.choices[0]
    assert choice.finish_reason == "length" and whole.usage.completion_tokens == 8
    assert "".join(choice.logprobs.tokens) == choice.text
    stream = client.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == choice.text
    assert chunks[-1].usage.completion_tokens == 8
    chat = {"model": server.name, "max_tokens": 8, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Once upon a time"}]}
    answer = client.chat.completions.create(**chat, logprobs=True, top_logprobs=3, n=2, seed=1)
    assert len(answer.choices) == 2 and answer.choices[0].message.role == "assistant"
    assert all(len(token.top_logprobs) == 3 for token in answer.choices[0].logprobs.content)
    parts = client.chat.completions.create(**chat, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == answer.choices[0].message.content, (text, answer)
    schema = {"type": "object", "properties": {"age": {"enum": [3, 4]}}, "required": ["age"],
              "additionalProperties": False}
    answer = client.chat.completions.create(**{**chat, "max_tokens": 40}, response_format={
        "type": "json_schema", "json_schema": {"name": "age", "schema": schema, "strict": True}})
    assert json.loads(answer.choices[0].message.content)["age"] in (3, 4)
    for change, error in [({"model": "other"}, openai.NotFoundError), ({"n": 0}, openai.BadRequestError),
                          ({"tools": [{"type": "function"}]}, openai.BadRequestError)]:
        try:
            client.chat.completions.create(**{**chat, **change})
        except error as found:
            assert found.param == next(iter(change)), found
        else:
            raise AssertionError(f"{change}: no error")
    print(f"{server.name}: the openai client {version('openai')} works", flush=True)


def main():
    openelm, *rest = sys.argv[1:]
    openelm = str(Path(openelm).resolve())
    if not rest:
        with Server(openelm, str(TALES)) as server:
            check_client(server)
        return
    folder, *models = rest
    if version("lm_eval") != LM_EVAL:
        sys.exit(f"parity: expected lm-eval {LM_EVAL}, found {version('lm_eval')}")
    folder = Path(folder).resolve()
    data = Path(os.environ["OPENELM_TEST_DATA"]) / "eval"
    write_tasks(folder, data, int(os.environ.get("QUESTIONS", "100")))
    equal = True
    for model in [str(TALES), *(str(Path(model).resolve()) for model in models)]:
        with Server(openelm, model) as server:
            check_client(server)
            equal &= compare(openelm, model, folder, server)
    if not equal:
        sys.exit("parity: the accuracies differ")
    print("parity: the server's accuracies are those of openelm evaluate")


if __name__ == "__main__":
    main()
