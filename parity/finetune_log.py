"""The rows that mlx-lm's trainer reads and its reports, for parity/finetune.py."""

from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset

from finetune_cases import BATCH


def trainable(model):
    """Trainable parameters by name."""
    return dict(tree_flatten(model.trainable_parameters()))


class Rows:
    """A data set of tokenized rows, as `CacheDataset` reads it: the `len` of a raw row must be
    constant, like the number of keys of mlx-lm's raw rows."""

    def __init__(self, rows):
        self.rows = [row if isinstance(row, dict) else {"tokens": row, "offset": 0} for row in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]

    def process(self, row):
        return row["tokens"], row["offset"]


class Recorded(CacheDataset):
    """Records the requested rows."""

    def __init__(self, data):
        super().__init__(data)
        self.requested = []

    def __getitem__(self, row):
        self.requested.append(row)
        return super().__getitem__(row)

    def batches(self):
        """The rows requested since the last call, by batch."""
        requested, self.requested = self.requested, []
        return [requested[i : i + BATCH] for i in range(0, len(requested), BATCH)]


class Log(TrainingCallback):
    """Keeps the reports, and the trainable parameters before the first step."""

    def __init__(self, model, valid):
        self.model, self.valid = model, valid
        self.start, self.train, self.validated = None, [], []

    def on_train_loss_report(self, report):
        self.train.append(report)

    def on_val_loss_report(self, report):
        if self.start is None:
            self.start = trainable(self.model)
        rows = self.valid.batches()
        reported = {"iteration": report["iteration"], "loss": report["val_loss"], "rows": rows}
        self.validated.append(reported)
