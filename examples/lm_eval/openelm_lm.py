"""The model `openelm` for lm-eval 0.4.13, and lm-eval's command line with it; see README.md."""

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

import scores


@register_model("openelm")
class OpenELMLM(LM):
    """A model folder that `openelm score` reads; each method starts one process.

    `pretrained` is the folder and `binary` the program. Other arguments are options of
    `openelm score`. lm-eval's command line always gives `batch_size` and `device`, which have no
    effect.
    """

    def __init__(
        self, pretrained, binary="openelm", batch_size=None, max_batch_size=None, device=None, **options
    ):
        super().__init__()
        self.command = scores.command(binary, pretrained, options)

    def loglikelihood(self, requests, **_):
        return scores.loglikelihoods(self.command, [request.args for request in requests])

    def loglikelihood_rolling(self, requests, **_):
        return scores.rolling_loglikelihoods(self.command, [request.args[0] for request in requests])

    def generate_until(self, requests, **_):
        message = "openelm: expected tasks of log-likelihoods, found a task that generates text"
        raise NotImplementedError(f"{message} (generate_until)")


if __name__ == "__main__":
    cli_evaluate()
