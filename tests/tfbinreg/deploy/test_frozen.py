"""Frozen graphs as bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfbinreg.deploy import frozen, tflite_file
from tfbinreg.deploy.freeze import freeze
from tfbinreg.deploy.frozen import FrozenGraph, FrozenOp


def test_a_graph_survives_its_bytes(trained_net):
    graph = freeze(trained_net)
    loaded = FrozenGraph.from_bytes(graph.to_bytes())
    assert loaded.input_names == graph.input_names and loaded.outputs == graph.outputs
    assert loaded.versions == graph.versions
    assert tflite_file.write(loaded) == tflite_file.write(graph)


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_damaged_bytes_are_refused(quantized_net, cut):
    with pytest.raises(ValueError, match="no frozen graph"):
        FrozenGraph.from_bytes(freeze(quantized_net).to_bytes()[:cut])


def test_other_formats_are_refused(quantized_net, monkeypatch):
    monkeypatch.setattr(frozen, "_FORMAT", 2)
    data = freeze(quantized_net).to_bytes()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="another format number"):
        FrozenGraph.from_bytes(data)


@pytest.mark.parametrize("slopes", [[0.5, -0.25], [0.0, 0.0], [1e-30, 3.0]])
def test_slopes_are_coded_symmetrically(slopes):
    op = FrozenOp("prelu", "PReLU", (0,), None, (2,), {"alpha": np.array(slopes, np.float32)})
    coded = frozen.slope_codes(op)
    assert coded.codes.dtype == np.int8 and coded.scale.dtype == np.float32
    np.testing.assert_allclose(coded.codes * coded.scale, slopes, atol=coded.scale / 2)


def test_an_operation_without_an_input_grid_is_named():
    source = FrozenOp("plain", "InputLayer", (), None, (2,))
    op = FrozenOp("dense", "Dense", (0,), None, (3,))
    graph = FrozenGraph(
        ops=(source, op), inputs=(0,), outputs=(1,), input_names=("a",), output_names=("b",)
    )
    with pytest.raises(ValueError, match="input of 'dense' is not on a grid"):
        graph.source_grid(op)
    with pytest.raises(ValueError, match="output of 'plain' is not on a grid"):
        tflite_file.write(graph)


_WITHOUT_TENSORFLOW = """
import pathlib, sys, types
package = types.ModuleType("tfbinreg")  # its own __init__ loads the training side
package.__path__ = [sys.argv[1]]
sys.modules.update({"tfbinreg": package, "tensorflow": None, "tf_keras": None})
from tfbinreg.deploy import frozen, proof, tflite_file
graph = frozen.FrozenGraph.from_bytes(pathlib.Path(sys.argv[2]).read_bytes())
data = tflite_file.write(graph)
proof.prove(data, graph)
sys.stdout.buffer.write(data)
"""


def test_from_the_frozen_graph_on_nothing_needs_tensorflow(quantized_net, tmp_path):
    graph = freeze(quantized_net)
    path = tmp_path / "net.frozen"
    path.write_bytes(graph.to_bytes())
    package = Path(frozen.__file__).parents[1]
    command = [sys.executable, "-c", _WITHOUT_TENSORFLOW, str(package), str(path)]
    run = subprocess.run(command, cwd=package.parent, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == tflite_file.write(graph)
