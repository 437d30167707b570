"""Run by test_study_train.py in processes of its own: makes runs of a tiny study, or dies of them.

    python study_runs.py FOLDER [EPOCH BATCH]

Makes the data in FOLDER, trains the float net and a quantized one from it, with results and
checkpoints in FOLDER too. With EPOCH and BATCH the process kills itself with SIGKILL when that
batch of the quantized net's training is drawn. Existing checkpoints are taken up.
"""

import json
import os
import pathlib
import signal
import sys

import numpy as np

from examples.study import train
from examples.study.data import Data, batches, read_data
from examples.study.folders import Folders
from examples.study.read import read_study

BR = {"name": "BinRegularization", "strategy": "two_stage", "switch_epoch": 2, "strength": 5.0}
STUDY = {
    "about": "a test",
    "nets": ["probe"],
    "rows": [64, 80, 96],
    "seeds": [5],
    "common": {"epochs": 4, "batch": 16, "rate": 0.01},
}


def make_study(folder, report=False):
    """The study "some", which starts from the net of "net"."""
    floats = {"bits": ["float"], "baseline": "a", "arms": {"a": {}}}
    quantized = {
        "bits": ["w2a2"],
        "baseline": "br",
        "start": "net",
        "report": report,
        "arms": {"br": {"callbacks": [BR], "step_rate": 0.5, "weight_decay": 0.01}},
    }
    for name, fields in (("net", floats), ("some", quantized)):
        (folder / f"{name}.json").write_text(json.dumps({**STUDY, **fields}))
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 96)
    images = random.integers(0, 128, (96, 32, 32, 3)) + 12 * labels[:, None, None, None]
    np.savez(folder / "cifar10.npz", x_train=images.astype(np.uint8), y_train=labels)
    return read_study(str(folder / "some.json"))


def killed_at(kill_epoch, kill_batch):
    """`batches` whose process dies when this batch of the training is drawn."""

    def dying(part, batch, seed, first, augment):
        per_epoch = len(part[0]) // batch
        found = enumerate(batches(part, batch, seed, first, augment), first * per_epoch)
        for index, item in found:
            if index == kill_epoch * per_epoch + kill_batch:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    return dying


def main(folder, *kill_at):
    train.use_one_thread()
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    [row] = make_study(folder).runs()
    data = read_data(str(folder), row.rows)
    # A test row that is looked at would be an error.
    data = Data(data.train, data.choice, test=None)
    folders = Folders(folder, folder / "results", folder / "cache")
    if not folders.weights(row.start).exists():
        train.run(row.start, folders, data)
    if kill_at:
        train.batches = killed_at(*map(int, kill_at))
    train.run(row, folders, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
