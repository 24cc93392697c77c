"""Log-likelihoods of `openelm score` for lm-eval's requests. Needs neither lm-eval nor packages."""

import json
import subprocess


def command(binary, model, options):
    """The command line of `openelm score`.

    `options` are options of the command without dashes, as `{"dtype": "float32"}`: `True` is an
    option without a value, `False` leaves the option out, a list repeats it.
    """
    words = [str(binary), "score", "--model", str(model), "--jsonl", "-"]
    for key, value in options.items():
        option = f"--{key.replace('_', '-')}"
        for each in value if isinstance(value, list) else [value]:
            if each is not False:
                words += [option] if each is True else [option, str(each)]
    return words


def loglikelihoods(command, pairs):
    """A `(logprob, is_greedy)` per `(context, continuation)`, in order."""
    rows = [{"context": context, "continuation": continuation} for context, continuation in pairs]
    return [(float(row["logprob"]), row["is_greedy"]) for row in results(command, rows)]


def rolling_loglikelihoods(command, texts):
    """The log-likelihood of each text, in order."""
    return [float(row["logprob"]) for row in results(command, [{"text": text} for text in texts])]


def results(command, rows):
    """The output rows of one process for all input rows, in order.

    Progress and errors of the program go to standard error.

    # Errors
    `FileNotFoundError` without the program, `RuntimeError` if it fails or a row is missing.
    """
    if not rows:
        return []
    lines = "".join(json.dumps({"id": i, **row}) + "\n" for i, row in enumerate(rows))
    try:
        done = subprocess.run(command, input=lines.encode(), stdout=subprocess.PIPE)
    except FileNotFoundError as error:
        message = f"binary: expected the openelm program, `{command[0]}` was not found"
        raise FileNotFoundError(message) from error
    if done.returncode:
        raise RuntimeError(f"openelm score: exit status {done.returncode}; standard error has the reason")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if [row.get("id") for row in found] != list(range(len(rows))):
        raise RuntimeError(f"openelm score: expected {len(rows)} rows in order, found {len(found)}")
    return found
