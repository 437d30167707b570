import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg.training.histograms import Board, write_bins


def test_they_are_written_per_kernel_every_so_many_epochs(tmp_path):
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(2, name="b")]
    )
    histograms = Board(tmp_path, 3, who="a test")
    for epoch in range(5):
        histograms.write(epoch, lambda: write_bins(tfbinreg.quantize_apply(net)))
    histograms.close()
    (file,) = tmp_path.iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(file)))
    found = {(value.tag, event.step) for event in events for value in event.summary.value}
    assert found == {("bins/a", 0), ("bins/b", 0), ("bins/a", 3), ("bins/b", 3)}
