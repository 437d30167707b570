"""C without the channels that a network does not need: the same outputs, and checks that see it."""

import numpy as np
import pytest
from file_maker import samples
from pruned_nets import pruned_net
from quick import slow

from tflite_tools.c import generate, host_run, source_folder, verify_folder
from tflite_tools.c.source_folder import Folder
from tflite_tools.checks.verdict import Verdict
from tflite_tools.pruning import removal
from tflite_tools.reports.describe import describe

NET = 11  # whose outputs differ without any of its channels


@pytest.fixture(scope="module")
def model():
    return pruned_net(NET)


@pytest.mark.parametrize("seed", [0, 11, *slow(*range(12, 40))])
def test_random_nets(seed, c_is_tflm):
    model = pruned_net(seed)
    sources, _ = c_is_tflm(model, paths=["portable"] if seed % 2 else ["dsp"])
    whole = generate.generate(model, whole=True)
    assert not whole.left_out
    for size in ("packed_weight_bytes", "constant_bytes"):
        more = getattr(whole, size) - getattr(sources, size)
        assert more > 0 if sources.left_out else more == 0
    check = source_folder.check_codes(sources.files["model.c"], model)
    assert (check.verdict, check.figures["left_out"]) == (
        Verdict.PASSED,
        sum(sources.left_out.values()),
    )


def test_folders_are_verified(model, needs_compiler):
    folder = Folder("net", generate.generate(model, name="net").files)
    report = verify_folder.verify_folder(folder, model, samples_count=8)
    assert report.passed
    assert "channels that it does not need are left out" in report["codes"].detail


def test_a_wrong_channel_is_found(model, monkeypatch, needs_compiler):
    """C that lacks another channel than it may: its weights and its outputs are not the file's."""
    right = removal.of_graph

    def wrong(graph):
        found = right(graph)
        tensor = next(index for index, kept in found.kept.items() if kept.sum() > 1)
        found.kept[tensor][:] = np.roll(found.kept[tensor], 1)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(removal, "of_graph", wrong)
        folder = Folder("net", generate.generate(model, name="net").files)
    check = source_folder.check_codes(folder.source, model)
    assert check.verdict is Verdict.FAILED
    assert "weights differ" in check.detail
    outputs = host_run.run(folder.files, model, samples(model, 4), flags=())
    right_ones = host_run.run(generate.generate(model).files, model, samples(model, 4), flags=())
    assert any(not np.array_equal(*pair) for pair in zip(outputs, right_ones, strict=True))


def test_reports_say_how_many(model):
    gone = generate.generate(model).left_out
    description = describe(model)
    assert {w.tensor: w.left_out for w in description.weights if w.left_out} == gone
    assert description.left_out.startswith(f"C leaves out {sum(gone.values())} channels")
