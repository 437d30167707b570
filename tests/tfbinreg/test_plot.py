"""Pictures: what is drawn, read from the figures."""

import sys

import numpy as np
import pytest

from tfbinreg import plot
from tfbinreg.core.grid import Grid
from tfbinreg.layers.sites import kernel_sites

pytest.importorskip("matplotlib")


def lines_at(axis):
    return [line.get_xdata()[0] for line in axis.get_lines()]


class TestBins:
    def test_every_kernel_of_few_bits_with_all_weights_and_levels(self, quantized_net):
        figure = plot.bins(quantized_net)
        few = [site for site in kernel_sites(quantized_net) if site.quantizer.bits < 8]
        assert [axis.get_title() for axis in figure.axes] == [f"{s.name}, bits: 2" for s in few]
        for axis, site in zip(figure.axes, few, strict=True):
            assert sum(bar.get_height() for bar in axis.patches) == site.size
            assert lines_at(axis) == [-2, -1, 0, 1]

    def test_bars_stand_where_the_weights_are(self, quantized_net):
        site = next(s for s in kernel_sites(quantized_net) if s.name == "pointwise")
        (axis,) = plot.bins(quantized_net, ["pointwise"]).axes
        step = np.abs(site.step.numpy())
        scaled = np.clip(site.kernel.numpy().astype(np.float64) / step, -3.5, 2.5)
        for bar in axis.patches:
            left, right = bar.get_x(), bar.get_x() + bar.get_width()
            inside = np.count_nonzero((scaled > left + 1e-4) & (scaled < right - 1e-4))
            near = np.count_nonzero((scaled > left - 1e-4) & (scaled < right + 1e-4))
            assert inside <= bar.get_height() <= near

    def test_eight_bits_are_drawn_without_lines(self, quantized_net, tmp_path):
        figure = plot.bins(quantized_net, "conv")
        (axis,) = figure.axes
        assert axis.get_title() == "conv, bits: 8" and lines_at(axis) == []
        figure.savefig(tmp_path / "bins.png")
        assert (tmp_path / "bins.png").read_bytes().startswith(b"\x89PNG")

    def test_layers_there_are_not(self, quantized_net, float_net):
        with pytest.raises(ValueError, match=r"no layer \['pool'\] among conv, depthwise"):
            plot.bins(quantized_net, ["conv", "pool"])
        with pytest.raises(ValueError, match="is not quantized"):
            plot.bins(float_net)

    @pytest.mark.parametrize(
        ("grid", "levels"),
        [
            (Grid.codebook((-5, 0, 2), 0.5), [-5, 0, 2]),
            (Grid.codebooks(((-1, 1), (0,)), [0.5, 1.0], 0), [-1, 0, 1]),
            (Grid(3, True, [1.0, 1.0, 1.0], -4, 3, 0, channel_bits=(0, 1, 2)), [-2, -1, 0, 1]),
            (Grid(2, False, 1.0, 0, 3), [0, 1, 2, 3]),
        ],
    )
    def test_levels(self, grid, levels):
        assert plot._levels(grid) == levels


class TestSteps:
    HISTORY = {"loss": [1.0, 0.5], "step/conv": [0.1, 0.2], "step/head": [0.3, 0.3]}  # noqa: RUF012

    def test_a_line_for_each(self):
        (axis,) = plot.steps(self.HISTORY).axes
        drawn = {line.get_label(): list(line.get_ydata()) for line in axis.get_lines()}
        assert drawn == {"conv": [0.1, 0.2], "head": [0.3, 0.3]}
        assert axis.get_yscale() == "log"

    def test_epochs_of_a_history_object(self):
        history = type("History", (), {"history": self.HISTORY, "epoch": [3, 4]})()
        (axis,) = plot.steps(history, ["head"]).axes
        (line,) = axis.get_lines()
        assert list(line.get_xdata()) == [3, 4]

    def test_what_is_not_there(self):
        with pytest.raises(ValueError, match=r"QuantizerLog\(steps=True\)"):
            plot.steps({"loss": [1.0]})
        with pytest.raises(ValueError, match=r"no layer \['pool'\] among conv, head"):
            plot.steps(self.HISTORY, ["pool"])


class TestPareto:
    RESULTS = (("w8", 8e4, 0.9), ("w4", 4e4, 0.9), ("w2", 2e4, 0.8), ("bad", 3e4, 0.7))

    def test_the_front_is_what_nothing_betters(self):
        front = plot.pareto_front(self.RESULTS)
        assert [name for name, *_ in front] == ["w2", "w4"]
        for own in self.RESULTS:  # by the definition
            better = [o for o in self.RESULTS if o[1] <= own[1] and o[2] >= own[2] and o != own]
            assert (own in front) == (not better)

    def test_points_names_line_and_limit(self):
        (axis,) = plot.pareto(self.RESULTS, limit=5e4).axes
        front, limit = axis.get_lines()
        assert list(front.get_xdata()) == [2e4, 4e4] and list(front.get_ydata()) == [80.0, 90.0]
        assert limit.get_xdata()[0] == 5e4
        assert [text.get_text() for text in axis.texts] == ["w8", "w4", "w2", "bad"]
        assert len(axis.collections[0].get_offsets()) == 4

    @pytest.mark.parametrize(
        ("results", "message"),
        [([], "no results"), ([("a", float("nan"), 1.0)], "must be finite numbers")],
    )
    def test_refusals(self, results, message):
        with pytest.raises(ValueError, match=message):
            plot.pareto(results)


def test_a_missing_matplotlib_is_said_so(monkeypatch, quantized_net):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (lambda: plot.bins(quantized_net), lambda: plot.steps({}), lambda: plot.pareto([])):
        with pytest.raises(ImportError, match=r"pip install matplotlib, or 'tfbinreg\[plot\]'"):
            draw()
