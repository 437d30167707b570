"""The README is run and compared with the code."""

import pathlib
import re

import tf_keras as keras

import tfbinreg
from tfbinreg.layers.sites import kernel_sites
from tfbinreg.network.layer_kinds import support_table

README = pathlib.Path(__file__).parent.parent.joinpath("README.md").read_text()


def blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def changed(text, old, new):
    """The text with another word in it, which has to be there."""
    assert old in text
    return text.replace(old, new)


def test_quickstart_and_recipes_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    quickstart, recipe, squeezed = blocks()
    scope = {}
    quickstart = changed(quickstart, "epochs=10", "epochs=6")
    exec(changed(quickstart, 'two_stage", 5', 'two_stage", 3'), scope)
    assert (tmp_path / "q.keras").exists()
    history = scope["q_model"].history.history
    assert history["accuracy"][-1] > 0.5 and history["br_stage"][-1] == 2

    recipe = changed(recipe, 'layer="block_1_.*"', 'layer="dense.*"')
    exec(changed(recipe, "DepthwiseConv2D", "Conv2D"), scope)
    kernels = {site.name: site.quantizer for site in kernel_sites(scope["q_model"])}
    assert {(k.bits, k.axis) for name, k in kernels.items() if "conv" in name} == {(4, 3)}
    assert {(k.bits, k.axis) for name, k in kernels.items() if "dense" in name} == {(8, None)}
    (tmp_path / "first.tflite.json").write_text(tfbinreg.Recipe(weight_bits=3).to_json())
    exec(squeezed, scope)
    made = scope["q_model"].recipe
    assert (made.weight_bits, made.rules) == (3, ())


def test_quickstart_is_short():
    assert len(blocks()[0].strip().splitlines()) <= 24


def test_support_table_is_the_kinds():
    assert support_table() in README
