"""Direct preference optimisation: losses and gradients in numpy's float64, without MLX.

    dpo.py FIXTURE

Writes FIXTURE (openelm-core/tests/fixtures/dpo.json), a list of cases, each with

loss, beta           "sigmoid" or "hinge"; the scale of the margin
policy_chosen, policy_rejected, reference_chosen, reference_rejected
                     [pairs] summed log-probabilities of each pair's answers
losses               [pairs]; "mean" is the batch's loss
gradient_chosen, gradient_rejected
                     [pairs] of the mean by policy_chosen and policy_rejected
reward_chosen, reward_rejected
                     [pairs] beta * (policy - reference); "accuracy" is the share of pairs whose
                     chosen reward is the larger

Formulas: Rafailov et al., arXiv 2305.18290 (sigmoid); Zhao et al., arXiv 2305.10425, with the
reference in the margin as Liu et al., arXiv 2309.06657 (hinge). With
D = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
sigmoid is -log sigmoid(beta D), hinge is max(0, 1 - beta D); at its kink the gradient is 0.
"""

import json
import sys
from pathlib import Path

import numpy as np


def dpo(loss, beta, policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    """Losses and gradients, as in the header; sums are lists or arrays of the same length."""
    policy_chosen, policy_rejected, reference_chosen, reference_rejected = (
        np.asarray(sums, dtype=np.float64)
        for sums in (policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    )
    reward_chosen = beta * (policy_chosen - reference_chosen)
    reward_rejected = beta * (policy_rejected - reference_rejected)
    scaled = beta * (
        (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    )
    if loss == "sigmoid":
        # -log sigmoid(x) = log(1 + exp(-x)), without overflow; its derivative is -sigmoid(-x).
        losses = np.logaddexp(0.0, -scaled)
        slope = -np.exp(-np.logaddexp(0.0, scaled))
    elif loss == "hinge":
        losses = np.maximum(0.0, 1.0 - scaled)
        slope = np.where(scaled < 1.0, -1.0, 0.0)
    else:
        raise ValueError(f"no such loss: {loss}")
    gradient = beta * slope / len(losses)
    return {
        "losses": losses,
        "mean": losses.mean(),
        "gradient_chosen": gradient,
        "gradient_rejected": 0.0 - gradient,
        "reward_chosen": reward_chosen,
        "reward_rejected": reward_rejected,
        "accuracy": (reward_chosen > reward_rejected).mean(),
    }


def cases():
    rng = np.random.default_rng(7)
    # A policy one or two nats from its reference: margins on both sides of 1.
    reference = -np.abs(rng.normal(40.0, 25.0, (2, 6)))
    sums = np.round(np.concatenate([reference + rng.normal(0.0, 1.5, (2, 6)), reference]), 4)
    # Margins of exactly 0, 10 and -10, and two that overflow a naive exp.
    edges = np.array(
        [
            [-30.0, -20.0, -40.0, -10.0, -90000.0],
            [-30.0, -40.0, -20.0, -90000.0, -10.0],
            [-5.0, -50.0, -50.0, -1.0, -2.0],
            [-5.0, -60.0, -40.0, -1.0, -2.0],
        ]
    )
    for loss in ("sigmoid", "hinge"):
        for beta in (0.01, 0.1, 1.0):
            yield loss, beta, sums
        yield loss, 0.1, edges


def plain(value):
    """A JSON value with full precision."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def main(path):
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    made = []
    for loss, beta, sums in cases():
        case = {"loss": loss, "beta": beta} | dict(zip(names, sums)) | dpo(loss, beta, *sums)
        made.append({key: plain(value) for key, value in case.items()})
        check_gradient(loss, beta, sums, made[-1])
    lines = ",\n".join(json.dumps(case) for case in made)
    Path(path).write_text(f"[\n{lines}\n]\n")
    print(f"{len(made)} cases, gradients equal finite differences")


def check_gradient(loss, beta, sums, case):
    """Compares the gradients with finite differences, away from the kink."""
    step = 1e-4
    for row, key in ((0, "gradient_chosen"), (1, "gradient_rejected")):
        for pair in range(sums.shape[1]):
            scaled = beta * (sums[0] - sums[1] - sums[2] + sums[3])[pair]
            if loss == "hinge" and abs(scaled - 1.0) < 1e-2:
                continue
            above, below = sums.copy(), sums.copy()
            above[row, pair] += step
            below[row, pair] -= step
            rise = dpo(loss, beta, *above)["mean"] - dpo(loss, beta, *below)["mean"]
            found, expected = rise / (2 * step), case[key][pair]
            # The mean reaches 9,000 if a margin is -90,000: its last bits are rounding noise.
            assert abs(found - expected) < 1e-7 + 1e-4 * abs(expected), (loss, key, pair)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
