"""Bits that BSQ finds on ResNet-8, and the remaining accuracy, by the penalty's strength.

    python benchmarks/found_bits.py --data_dir DIR [--strengths 1 2] [--epochs 9] [--rows 2400]
                                    [--json FILE]

It uses the published float net and the rows of first_try.py, W8A8 at the start, SGD 0.02 with
momentum 0.9 and cosine decay to zero, and batches of 64. Planes are trimmed every 4 epochs and
fixed after two thirds. Bits are means over the weights, with and without the sign. The file is
converted, and its codes are compared with the model's. Finished rows are saved in --json, so a
stopped run can be continued.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import first_try
import numpy as np
import rows
import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tflite_tools.schema import codes
from tflite_tools.schema.contents import load

NET, OPTIMIZER = "resnet8", first_try.Arm("sgd", 0.02)
EVERY, PLANES_UNTIL = 4, 2 / 3
_KEYS = ("strength", "epochs", "rows")
_COLUMNS = (*_KEYS, "bits", "planes", "of layers", "test", "codes", "seconds")


def row(strength: str, epochs: str, count: str, options: argparse.Namespace) -> rows.Row:
    """What became of the net at a strength."""
    begin = time.perf_counter()
    keras.utils.set_random_seed(0)
    data = first_try.read_data(NET, options.data_dir)
    order = np.random.default_rng(0).permutation(len(data.train[0]))[: int(count)]
    images, labels = data.train[0][order], data.train[1][order]
    own = {"strength": float(strength), "every": EVERY, "planes_until": PLANES_UNTIL}
    recipe = tfbinreg.Recipe(method="bsq", weight_bits=8, options={"bsq": own})
    model = tfbinreg.quantize_apply(
        first_try.float_model(NET, options, data),
        recipe,
        calibration_data=images[: first_try.CALIBRATION_ROWS],
    )
    first_try.fit(model, OPTIMIZER, (images, labels), int(epochs))
    seen = slice(first_try.FINALIZE_ROWS)
    tfbinreg.finalize(model, (images[seen], labels[seen]))
    sites = kernel_sites(model)
    bits = [site.grid().bits for site in sites]
    mean = float(np.average(bits, weights=[site.size for site in sites]))
    stored = codes.codes_of(load(tfbinreg.to_tflite(model)))
    wrong = sum(
        int(np.count_nonzero(stored[layer] != coded.codes))
        for layer, coded in tfbinreg.integer_codes(model).items()
    )
    return {
        **dict(zip(_KEYS, (strength, epochs, count), strict=True)),
        "bits": round(mean, 2),
        "planes": round(mean - 1.0, 2),
        "of layers": " ".join(map(str, bits)),
        "test": first_try.accuracy(model, *data.test),
        "codes": wrong,
        "seconds": round(time.perf_counter() - begin),
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default=".")
    parser.add_argument("--cache_dir", default="runs/first_try")
    parser.add_argument("--strengths", nargs="+", default=["1", "2"])
    parser.add_argument("--epochs", default="9")
    parser.add_argument("--rows", default="2400")
    parser.add_argument("--json", metavar="FILE", help="save the rows here, and continue from them")
    parser.add_argument("--of", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a row failed or a code differs."""
    options = parse(arguments)
    if options.of:
        print(json.dumps(row(*options.of, options)))
        return 0
    cells = [(strength, options.epochs, options.rows) for strength in options.strengths]
    found = rows.kept(options.json, _KEYS)
    flags = ["--data_dir", options.data_dir, "--cache_dir", options.cache_dir]
    for of in cells:
        made = None if of in found else rows.in_own_process(__file__, of, flags)
        if made is not None:
            found[of] = made
            rows.keep(options.json, list(found.values()))
    done = [found[of] for of in cells if of in found]
    print(rows.markdown(_COLUMNS, done))
    return int(len(done) < len(cells) or any(each["codes"] for each in done))


if __name__ == "__main__":
    sys.exit(main())
