"""Questions and metrics of lm-eval, for openelm-core/tests/tasks.

    python -m venv lm-eval && lm-eval/bin/pip install lm_eval==0.4.13 pyarrow
    lm-eval/bin/python parity/tasks.py

For each task that OpenELM defines, this script makes documents in the schema of the task's data set,
runs lm-eval's own definition on them, and writes documents, requests and metrics of made-up
log-likelihoods to openelm-core/tests/fixtures/tasks.
"""

import json
import math
import pathlib
import tempfile

import datasets
import pyarrow.parquet
from lm_eval.api.metrics import stderr_for_metric
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

OUT = pathlib.Path(__file__).parent.parent / "openelm-core/tests/fixtures/tasks"

# Awkward texts: white space, quotation marks, brackets, other scripts.
TEXTS = [
    "plain text",
    "  two  spaces   around ",
    "it's \"quoted\" and 'quoted'",
    "brackets [title] of [step] WikiHow [header]  here",
    "naïve café — 漢字 🦙",
    "a\nnew line\tand a tab",
    "{{ braces }} {% tags %} \\ backslash \\n",
    "\u00a0no-break\u2009thin\u3000wide ",
    "123",
    "ΑΣ ǆ ß İstanbul \u001f",
]


def text(number, salt=0):
    return f"{TEXTS[(number + salt) % len(TEXTS)]}{'' if number % 3 else f' {number}'}"


def arc(n):
    letters = ["1", "2", "3", "4"] if n % 3 == 0 else ["A", "B", "C", "D"]
    count = 3 + n % 2
    choices = {"text": [text(n, i) for i in range(count)], "label": letters[:count]}
    return {"id": f"q{n}", "question": text(n, 5), "choices": choices, "answerKey": letters[n % count]}


def openbookqa(n):
    doc = arc(n)
    doc["question_stem"] = doc.pop("question")
    doc["answerKey"] = " " + doc["answerKey"]
    return doc


def boolq(n):
    return {"question": text(n, 1), "passage": text(n, 2), "idx": n, "label": n % 2}


def hellaswag(n):
    return {
        "ind": n,
        "activity_label": text(n, 3),
        "ctx_a": text(n, 4),
        "ctx_b": ["", "the Man", "ßA", "ǆungla B", "ΟΔΟΣ", "ÉCOLE"][n % 6],
        "ctx": "unused",
        "endings": [text(n, i) for i in range(4)],
        "label": str(n % 4),
    }


def piqa(n):
    return {"goal": text(n), "sol1": text(n, 1), "sol2": text(n, 7), "label": n % 2}


def sciq(n):
    doc = {f"distractor{i}": text(n, i) for i in (1, 2, 3)}
    return doc | {"question": text(n, 4), "correct_answer": text(n, 5), "support": text(n, 6)}


def winogrande(n):
    sentence = f"{text(n, 4)} gave _ the {text(n, 2)} since _ was kind."
    return {"sentence": sentence, "option1": text(n, 0), "option2": "Kim", "answer": str(1 + n % 2)}


def race(n):
    endings = ["What is it?", "It is  _  .", "It's \"it\" 'it'  _  .", "naïve\\ _  ."]
    problem = lambda i: {
        "question": text(n, i) + endings[(n + i) % 4],
        "answer": "ABCD"[(n + i) % 4],
        "options": [text(n, i + j) for j in range(4)],
    }
    problems = [problem(i) for i in range(1 + n % 4)]
    return {"article": text(n, 3), "problems": repr(problems)}


def truthfulqa(n):
    targets = lambda count: {
        "choices": [text(n, i) for i in range(count)],
        "labels": [1 if i < 1 + n % 2 else 0 for i in range(count)],
    }
    return {"question": text(n, 2), "mc1_targets": targets(2), "mc2_targets": targets(2 + n % 4)}


def crows_pairs(n):
    return {"id": n, "sent_more": text(n, 1), "sent_less": text(n, 4), "bias_type": "age"}


def social_iqa(n):
    answers = {f"answer{letter}": text(n, i) for i, letter in enumerate("ABC")}
    return {"context": text(n, 1), "question": text(n, 2), "label": str(1 + n % 3)} | answers


def mmlu(n):
    return {
        "question": text(n, 3),
        "subject": "any",
        "choices": [text(n, i) for i in range(4)],
        "answer": n % 4,
    }


def rows(make, first, count):
    return [make(number) for number in range(first, first + count)]


def splits(make, names, train=12):
    """Documents of each split; `train` of them to draw examples from."""
    sizes = {"train": train, "validation": 10, "test": 10, "dev": 6}
    return {name: rows(make, 20 * at, sizes[name]) for at, name in enumerate(names)}


# Task, documents, numbers of examples of the paper.
CASES = {
    "arc_easy": (splits(arc, ["test", "validation", "train"]), [1]),
    "arc_challenge": (splits(arc, ["test", "validation", "train"], 40), [25]),
    "boolq": (splits(boolq, ["validation", "train"]), [2]),
    "hellaswag": (splits(hellaswag, ["validation", "train"], 100), [10]),
    "piqa": (splits(piqa, ["validation", "train"]), [2]),
    "sciq": (splits(sciq, ["test", "validation", "train"]), [2]),
    "winogrande": (splits(winogrande, ["validation", "train"]), [5]),
    "race": (splits(race, ["test"]), [3]),
    "truthfulqa_mc2": (splits(truthfulqa, ["validation"]), []),
    "crows_pairs_english": ({"test": rows(crows_pairs, 0, 30)}, [25]),
    "openbookqa": (splits(openbookqa, ["test", "validation", "train"]), [2]),
    "social_iqa": (splits(social_iqa, ["validation", "train"]), [2]),
    "mmlu_abstract_algebra": (splits(mmlu, ["test", "dev"]), [5]),
}

# Definitions of a user, for the keys that the tasks above do not have.
CUSTOM = {
    "custom_cloze": (
        """\
task: custom_cloze
dataset_path: custom
output_type: loglikelihood
validation_split: validation
test_split: null
description: "Words about {{topic}}:\\n"
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
fewshot_delimiter: "\\n---\\n"
target_delimiter: "|"
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
  - metric: acc
""",
        {"validation": [{"topic": text(n, 3), "text": f"{text(n)} end{n}"} for n in range(10)]},
        [3],
    ),
    "custom_rolling": (
        """\
task: custom_rolling
dataset_path: custom
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{page|regex_replace(' *([?!]) *', '\\\\1$')}}"
metadata:
  version: 2
""",
        {"test": [{"page": f"{text(n)} ? {text(n, 3)}!\n"} for n in range(10)]},
        [],
    ),
    "custom_choice": (
        """\
task: custom_choice
dataset_path: custom
output_type: multiple_choice
training_split: train
validation_split: validation
fewshot_split: validation
fewshot_config:
  sampler: first_n
  doc_to_text: "Example: {{q}}"
  target_delimiter: " => "
test_split: validation
doc_to_text: q
doc_to_target: answer
doc_to_choice:
  no: "never"
  yes: "al ways"
target_delimiter: ": "
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
  - metric: exact_match
""",
        {
            "train": [{"q": text(n, 2), "answer": "never"} for n in range(3)],
            "validation": [
                {"q": text(n, 1), "answer": ["never", "al ways", "maybe"][n % 3]} for n in range(10)
            ],
        },
        [2],
    ),
    "custom_samples": (
        """\
task: custom_samples
dataset_path: custom
output_type: multiple_choice
test_split: test
fewshot_config:
  samples:
    - {q: "first", answer: 1}
    - {q: "second", answer: 0}
    - {q: "third", answer: 1}
doc_to_text: "{{q}}?"
doc_to_target: "{{answer}}"
doc_to_choice: "{{['no', 'yes' if q else q]}}"
""",
        {"test": [{"q": text(n, 1), "answer": n % 2} for n in range(10)]},
        [2],
    ),
}


def outcome(document, choice):
    """A made-up log-likelihood, with ties, and whether it is greedy."""
    return [-((document * 7 + choice * 13) % 5) * 1.25 - 0.5, (document + choice) % 3 == 0]


def load(spec, documents):
    def download(self, *_, **__):
        splits = {name: datasets.Dataset.from_list(rows) for name, rows in documents.items()}
        self.dataset = datasets.DatasetDict(splits)

    ConfigurableTask.download = download
    tasks = TaskManager().load([spec])["tasks"]
    (task,) = tasks.values()
    return task


def plain(value):
    """Numbers of NumPy as JSON."""
    return value.item() if hasattr(value, "item") else value


def run(task, shots, limit):
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=limit)
    questions, values = [], {}
    for number in range(limit):
        requests = [i for i in task.instances if i.doc_id == number]
        doc = requests[0].doc
        arguments = [list(i.args) for i in requests]
        contexts = [a[0] if len(a) > 1 else "" for a in arguments]
        same = len(set(contexts)) == 1
        question = {"context": contexts[0] if same else contexts}
        question["continuations"] = [a[-1] for a in arguments]
        if task.OUTPUT_TYPE == "multiple_choice":
            gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
            choices = task.doc_to_choice(doc)
            gold = [choices.index(gold)] if gold in choices else [gold]
            question["gold"] = [g for g in gold if isinstance(g, int) and g < len(choices)]
        questions.append(question)
        outcomes = [tuple(outcome(number, choice)) for choice in range(len(requests))]
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            outcomes = [o[0] for o in outcomes]
        for name, value in task.process_results(doc, outcomes).items():
            values.setdefault(name, []).append(value)
    metrics = {}
    for name, items in values.items():
        aggregation = task.aggregation()[name]
        error = None
        # Others are drawn at random (bootstrap).
        if aggregation.__name__ == "mean":
            if len(items) > 1:
                error = plain(stderr_for_metric(aggregation, 100)(items))
            items = [plain(float(item)) for item in items]
        metrics[name] = {
            "value": plain(aggregation(items)),
            "stderr": error,
            "values": items if error is not None else [],
            "higher_is_better": task.higher_is_better()[name],
        }
    return {"num_fewshot": shots, "limit": limit, "questions": questions, "metrics": metrics}


def write(name, fixture):
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(fixture, ensure_ascii=False, indent=0) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def case(name, spec, documents, shots, definition=None):
    task = load(spec, documents)
    count = len(task.eval_docs)
    runs = [run(task, 0, min(count, 10))] + [run(task, n, 3) for n in shots]
    fixture = {"task": name, "dataset": task.config.dataset_path, "splits": documents, "runs": runs}
    fixture["version"] = str(task.VERSION) if task.VERSION != "Yaml" else ""
    if definition:
        fixture["definition"] = definition
    write(name, fixture)


def subjects():
    """The first question of each subject of MMLU, and averages over made-up results."""
    documents = splits(mmlu, ["test", "dev"])
    documents = {name: rows[5:] if name == "test" else rows[:5] for name, rows in documents.items()}
    manager = TaskManager()

    def download(self, *_, **__):
        splits = {name: datasets.Dataset.from_list(rows) for name, rows in documents.items()}
        self.dataset = datasets.DatasetDict(splits)

    ConfigurableTask.download = download
    loaded = manager.load(["mmlu"])
    names = sorted(loaded["tasks"])
    prefixes, results = {}, {}
    for at, name in enumerate(names):
        task = loaded["tasks"][name]
        prefixes[name] = {"dataset_name": task.config.dataset_name}
        prefixes[name]["context"] = run(task, 0, 1)["questions"][0]["context"]
        value, size = (at * 7 % 11) / 10, 2 + at * 5 % 90
        error = math.sqrt(value * (1 - value) / (size - 1))
        results[name] = {"acc,none": value, "acc_stderr,none": error, "sample_len": size}
    groups = {}
    for name, group in loaded["groups"].items():
        found = group.aggregate(results)
        groups[name] = {
            "tasks": sorted(t.task_name for t in group.get_all_tasks()),
            "documents": found["sample_len"],
            "acc": plain(found["acc,none"]),
            "stderr": plain(found["acc_stderr,none"]),
        }
    results = {
        name: [r["acc,none"], r["acc_stderr,none"], r["sample_len"]] for name, r in results.items()
    }
    write("mmlu", {"splits": documents, "subjects": prefixes, "results": results, "groups": groups})


def parquet():
    """Nested columns as Hugging Face writes them."""
    for name, split, group in [("arc_easy", "test", 4), ("truthfulqa_mc2", "validation", 10)]:
        data = datasets.Dataset.from_list(CASES[name][0][split])
        path = OUT / f"{name}.parquet"
        pyarrow.parquet.write_table(
            data.data.table, path, row_group_size=group, compression="snappy"
        )
        print(f"{path.name}: {path.stat().st_size} bytes")


def main():
    OUT.mkdir(exist_ok=True)
    for name, (documents, shots) in CASES.items():
        case(name, name, documents, shots)
    for name, (definition, documents, shots) in CUSTOM.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / f"{name}.yaml"
            path.write_text(definition)
            case(name, str(path), documents, shots, definition)
    subjects()
    parquet()


if __name__ == "__main__":
    main()
