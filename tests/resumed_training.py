"""Run by test_callbacks.py in a process of its own: trains with a backup, and may kill itself.

    python resumed_training.py FOLDER STRATEGY [EPOCH BATCH]

Trains 6 epochs of 4 batches, backing up each epoch in FOLDER/backup; with EPOCH and BATCH it kills
itself there with SIGKILL. Writes the final weights to FOLDER/weights.npz.
"""

import os
import signal
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from trainable_net import build, data

import tfbinreg


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self._at, self._epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._epoch, batch) == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, strategy, *kill_at):
    tf.config.experimental.enable_op_determinism()
    quantized = build()
    inputs, labels = data()
    options = {"switch_epoch": 2} if strategy == "two_stage" else {}
    callbacks = [
        keras.callbacks.BackupAndRestore(os.path.join(folder, "backup")),
        tfbinreg.BinRegularization(strategy, strength=0.5, **options),
    ]
    if kill_at:
        callbacks.append(Kill(*map(int, kill_at)))
    quantized.fit(inputs, labels, 16, epochs=6, shuffle=False, verbose=0, callbacks=callbacks)
    weights = {str(i): weight for i, weight in enumerate(quantized.get_weights())}
    np.savez(os.path.join(folder, "weights.npz"), **weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
