"""Every method on two trained nets, with only a recipe: from the float net to a correct file.

    python benchmarks/methods.py --data_dir DIR [--methods ...] [--nets resnet8 dscnn] [--bits 2,8]
                                 [--seeds 0 1 2] [--epochs 3] [--json FILE]

Nets, rows and the length of the training are those of first_try.py: 4,800 rows, three epochs in
batches of 64, Adam 0.001 with cosine decay to zero, for all methods; `--epochs 0` skips the
training, to show what solvers do alone. Each row is trained, saved, loaded, finalized and
converted. Then the codes in the file are compared with the model's, and the outputs of LiteRT, TFLM
and the generated C on 100 test images with the model finalized for each. All numbers that differ
are counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import first_try
import numpy as np
import rows
import tensorflow as tf
import tf_keras as keras

import tfbinreg
from tfbinreg import BinRegularization, PenaltySchedule, QuantizerLog, TransitionLog
from tflite_tools.c import generate, host_run
from tflite_tools.running import runtime, samples
from tflite_tools.schema import codes
from tflite_tools.schema.contents import Model, load

ROWS, COMPARED = 4800, 100
OPTIMIZER = first_try.Arm("adam", 0.001)
_KEYS = ("method", "net", "bits", "seed", "epochs")
_COLUMNS = (*_KEYS, "test", "codes", "LiteRT", "TFLM", "C", "bytes", "seconds")


def _no_callbacks() -> list[Any]:
    return []


class Way(NamedTuple):
    """How a method is asked for.

    Attributes:
        recipe: the recipe's fields.
        callbacks: makes those of the training.
        teacher: whether the float net is a teacher.
        solves: whether `solve` runs between calibration and training.
    """

    recipe: Mapping[str, Any] = {}
    callbacks: Callable[[], list[Any]] = _no_callbacks
    teacher: bool = False
    solves: bool = False


def _penalty(name: str, strategy: str, strength: Any) -> Way:
    return Way({"penalties": (name,)}, lambda: [PenaltySchedule(name, strategy, strength=strength)])


WAYS = {
    "lsq": Way(),
    "tqt": Way({"method": "tqt"}),
    "gdrq": Way({"method": "gdrq"}),
    "bin_regularization": Way(
        callbacks=lambda: [BinRegularization("two_stage", 1, strength="auto")]
    ),
    "msqe": _penalty("msqe", "ramp", "auto"),
    "dampening": _penalty("dampening", "cosine", "auto"),
    "kure": _penalty("kure", "joint", 1.0),
    "freezing": Way(
        {"updates": ("freezing",), "options": {"freezing": {"momentum": 0.02}}},
        lambda: [TransitionLog()],
    ),
    "trs": Way({"updates": ("trs",)}, lambda: [TransitionLog()]),
    "tsq": Way({"method": "tsq"}, solves=True),  # at 8 bits step 1 needs no training
    "lapq": Way({"solver": "lapq"}, solves=True),
    "alq": Way({"method": "alq"}),
    "alq_straight_through": Way(
        {"method": "alq", "options": {"alq": {"rounds": 0, "straight_through": True}}}
    ),
    "bsq": Way({"method": "bsq"}),  # of the bits given it finds fewer
    "cpq": Way({"method": "cpq"}, lambda: [QuantizerLog()]),
    "cpq_multiclass_ste": Way(
        {"method": "cpq", "options": {"cpq": {"backward": "multiclass_ste"}}},
        lambda: [QuantizerLog()],
    ),
    "cpq_learned_bits": Way(
        {
            "method": "cpq",
            "options": {"cpq": {"drop_bits": True, "strength": 0.2}},
            "rules": (tfbinreg.Rule(weight_bits=4),),  # at most
        },
        lambda: [QuantizerLog()],
    ),
    "mirror_descent": Way({"method": "mirror_descent"}),
    "mirror_softmax": Way(
        {"method": "mirror_descent", "options": {"mirror_descent": {"form": "softmax"}}}
    ),
    "distill": Way(teacher=True),
}


def trained(way: Way, model: Any, data: first_try.Data, bits: str, seed: int, epochs: int) -> Any:
    """The net quantized and, unless there are no epochs, trained."""
    keras.utils.set_random_seed(seed)
    order = np.random.default_rng(seed).permutation(len(data.train[0]))[:ROWS]
    images, labels = data.train[0][order], data.train[1][order]
    weight_bits, activation_bits = map(int, bits.split(","))
    recipe = tfbinreg.Recipe(weight_bits=weight_bits, activation_bits=activation_bits, **way.recipe)
    calibration = images[: first_try.CALIBRATION_ROWS]
    quantized = tfbinreg.quantize_apply(model, recipe, calibration_data=calibration)
    steps = max(1, epochs) * -(-ROWS // first_try.BATCH)
    quantized.compile(
        first_try.optimizer(OPTIMIZER, steps), "sparse_categorical_crossentropy", ["accuracy"]
    )
    if way.solves:
        tfbinreg.solve(quantized, (calibration, labels[: len(calibration)]), verbose=0)
    if way.teacher:
        tfbinreg.distill(quantized, model)
    if epochs:
        quantized.fit(images, labels, first_try.BATCH, epochs, verbose=0, callbacks=way.callbacks())
    seen = slice(first_try.FINALIZE_ROWS)
    tfbinreg.finalize(quantized, (images[seen], labels[seen]))
    return quantized


def reloaded(model: Any) -> Any:
    """The model after a way through a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "q.keras")
        model.save(path)
        return tfbinreg.load_model(path)


def differences(model: Any, file: Model, images: np.ndarray) -> dict[str, int]:
    """Output numbers of the runtimes that are not the model's, finalized for each."""
    [name] = samples.input_names(file)
    stored = samples.stored(file, {name: images})
    [grid] = [file.main.tensors[index].quantization for index in file.main.outputs]

    def wrong(outputs: Sequence[np.ndarray]) -> int:
        expected = model.predict(images, verbose=0) / grid.scale[0]
        return int(np.count_nonzero(outputs[0] != np.rint(expected) + grid.zero_point[0]))

    tfbinreg.finalize(model, target="litert")
    found = {"LiteRT": wrong(runtime.run(file, stored, runtime=runtime.LITERT).outputs)}
    tfbinreg.finalize(model, target="tflm")
    found["TFLM"] = wrong(runtime.run(file, stored, runtime=runtime.TFLM).outputs)
    found["C"] = wrong(host_run.run(generate.generate(file).files, file, stored))
    return found


def row(
    method: str, net: str, bits: str, seed: str, epochs: str, options: argparse.Namespace
) -> rows.Row:
    """What became of a method on a net."""
    begin = time.perf_counter()
    data = first_try.read_data(net, options.data_dir)
    float_model = first_try.float_model(net, options, data)
    model = reloaded(trained(WAYS[method], float_model, data, bits, int(seed), int(epochs)))
    content = tfbinreg.to_tflite(model)
    file = load(content)
    stored = codes.codes_of(file)
    wrong = sum(
        int(np.count_nonzero(stored[layer] != coded.codes))
        for layer, coded in tfbinreg.integer_codes(model).items()
    )
    return {
        **dict(zip(_KEYS, (method, net, bits, seed, epochs), strict=True)),
        "test": first_try.accuracy(model, *data.test),
        "codes": wrong,
        **differences(model, file, data.test[0][:COMPARED]),
        "bytes": len(content),
        "seconds": round(time.perf_counter() - begin),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default=".")
    parser.add_argument("--cache_dir", default="runs/first_try")
    parser.add_argument("--methods", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--nets", nargs="+", choices=first_try.NETS, default=first_try.NETS)
    parser.add_argument("--bits", nargs="+", default=["2,8"])
    parser.add_argument("--seeds", nargs="+", default=["0"])
    parser.add_argument("--epochs", nargs="+", default=["3"])
    parser.add_argument("--json", metavar="FILE", help="save the rows here, and continue from them")
    parser.add_argument("--of", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a row failed or a number differs."""
    options = parse(arguments)
    os.makedirs(options.cache_dir, exist_ok=True)
    if options.of:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        print(json.dumps(row(*options.of, options)))
        return 0
    cells = list(
        itertools.product(
            options.methods, options.nets, options.bits, options.seeds, options.epochs
        )
    )
    found = rows.kept(options.json, _KEYS)
    flags = ["--data_dir", options.data_dir, "--cache_dir", options.cache_dir]
    for of in cells:
        made = None if of in found else rows.in_own_process(__file__, of, flags)
        if made is not None:
            found[of] = made
            rows.keep(options.json, list(found.values()))
    done = [found[of] for of in cells if of in found]
    print(rows.markdown(_COLUMNS, done))
    right = all(each[part] == 0 for each in done for part in ("codes", "LiteRT", "TFLM", "C"))
    return int(len(done) < len(cells) or not right)


if __name__ == "__main__":
    sys.exit(main())
