"""TSQ: first few activation levels with float weights, then ternary weights by least squares.

Wang, Hu, Zhang, Zhang, Liu and Cheng, "Two-Step Quantization for Low-bit Neural Networks", CVPR
2018. The body of the paper could not be read. Step 1, its constants and its gradient are as in the
authors' released AlexNet, the optimal ternary start as in their other code (Optimal Ternary Weights
Approximation). Known only in outline is step 2: the objective, the relaxation of Q by a clip and
the increasing eta are the reading implemented here; the values of eta, the rounds, the samples and
the choice of the best kernel that was met are this package's own, and so are kernels of more than 2
bits, grids of other bits than 2, normalizations with a scale and an offset, and training after
step 2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from tfbinreg.methods.contract import About, GridSpec, KernelSpec, Method
from tfbinreg.methods.lsq import LSQ, LsqOptions
from tfbinreg.methods.solver_view import Solved, SolverKernel, SolverView
from tfbinreg.methods.tsq_least_squares import (
    Coded,
    LayerSolver,
    LayerTask,
    coded_start,
    within_bins,
)
from tfbinreg.methods.tsq_quantizers import (
    DATA,
    FREE,
    HALF,
    PAPER,
    TSQActivationQuantizer,
    TSQWeightQuantizer,
)

_FEW_BITS = 4  # up to here activations are TSQ's


@dataclasses.dataclass(frozen=True, kw_only=True)
class TsqOptions:
    """Where the activation levels come from, and how the kernels are searched.

    Attributes:
        sparsity: target share of the numbers at a grid, including negative ones, that become 0.
        constants: "data" takes dead zone and step from the calibration data; "paper" uses 0.32 and
            0.6487, the values for normal numbers with variance 1 at 2 bits: every grid of up to 4
            bits has to follow a BatchNormalization without gamma and beta.
        dead_zone: "half" ends it at half the step, as files store it; "free" keeps the one from the
            sparsity or the paper, for studies: such a model can be trained but not converted.
        first_eta: weight of the outputs relative to the targets at the beginning of step 2.
        last_eta: the same at its end.
        etas: number of values from the first to the last, at equal ratios.
        rounds: rounds of scales, codes and targets at each value.

    Raises:
        ValueError: for a value outside its range.
    """

    sparsity: float = 0.625
    constants: str = DATA
    dead_zone: str = HALF
    first_eta: float = 0.1
    last_eta: float = 10.0
    etas: int = 5
    rounds: int = 4

    def __post_init__(self) -> None:
        if not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"sparsity must be from 0 to below 1, got {self.sparsity!r}.")
        for name, known in {"constants": (DATA, PAPER), "dead_zone": (HALF, FREE)}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be {' or '.join(map(repr, known))}, got {getattr(self, name)!r}."
                )
        if not 0.0 < self.first_eta <= self.last_eta < math.inf:
            raise ValueError(
                "etas must be positive, and the last not below the first, got "
                f"{self.first_eta!r} and {self.last_eta!r}."
            )
        for name in ("etas", "rounds"):
            value = getattr(self, name)
            if not (type(value) is int and value > 0):
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def solve_kernels(view: SolverView, options: TsqOptions) -> list[Solved]:
    """TSQ's step 2: kernels one after the other, so that each gives the codes of the net of step 1.

    Each layer gets the inputs that the quantized layers before it produce, and should compute what
    was on the grid after it before any kernel was quantized (`LayerSolver`). Kernels of other
    methods are not changed. The reported numbers are sums of squared errors divided by the sums of
    squares of the targets, for the start and for the result, which is never larger. The latent
    weights stay near the float ones, in the bins of their codes (`within_bins`).

    Args:
        view: of the model.
        options: of the method.

    Raises:
        ValueError: if no kernel is TSQ's, or one is solved already.
    """
    kernels = [own for own in view.kernels if isinstance(own.quantizer, TSQWeightQuantizer)]
    if not kernels:
        raise ValueError("TSQ solves kernels of the method 'tsq', and the model has none.")
    done = [own.name for own in kernels if own.variables["solved"].numpy()]
    if done:
        raise ValueError(
            f"The kernels of {', '.join(done)} are solved already: TSQ starts from float weights, "
            "so quantize the float model anew."
        )
    targets = view.outputs()
    solved = []
    for index, kernel in enumerate(kernels):
        view.advance(index / len(kernels), f"tsq, {kernel.name}")
        kept = view.recall(kernel.name)
        if kept is None:
            kept = _solve(kernel, targets[kernel.name], options)
            view.keep(kernel.name, **kept)
        kernel.set_latent(kept["kernel"])
        kernel.set_scale(kept["scale"])
        kernel.variables["solved"].assign(1)
        solved.append(Solved(kernel.name, *map(float, kept["errors"])))
        view.tell(str(solved[-1]))
    return solved


def _solve(kernel: SolverKernel, targets: np.ndarray, options: TsqOptions) -> dict[str, Any]:
    """The latent kernel, the scale in its shape, and the relative errors before and after."""
    behind = kernel.behind()
    weights = kernel.to_rows(kernel.latent()).astype(np.float64)
    groups, _, outputs = weights.shape
    task = LayerTask(
        inputs=kernel.inputs(),
        targets=targets.astype(np.float64),
        weights=weights,
        factor=behind.factor,
        offset=behind.offset,
        low=behind.low,
        high=behind.high,
        qmax=kernel.quantizer.qmax,
        shared=kernel.scale().size < groups * outputs,
    )
    solver = LayerSolver(task)
    etas = np.geomspace(options.first_eta, options.last_eta, options.etas)
    found = solver.solve(etas, options.rounds)
    start = coded_start(weights, task.qmax, task.shared)
    power = max(float(np.sum(task.targets**2)), np.finfo(np.float64).tiny)
    errors = [float(np.sum(solver.error(coded))) / power for coded in (start, found)]
    scale = np.where(found.scale > 0.0, found.scale, _some_scale(found)).astype(np.float32)
    rows = within_bins(weights, Coded(found.codes, scale), task.qmax).astype(np.float32)
    per_channel = scale.reshape(-1)
    return {"kernel": kernel.from_rows(rows), "scale": per_channel, "errors": np.array(errors)}


def _some_scale(coded: Coded) -> float:
    """A positive scale for channels of zeros, where any will do: the mean of the others, or 1."""
    live = coded.scale[coded.scale > 0.0]
    return float(np.mean(live)) if live.size else 1.0


def _weights(spec: KernelSpec, options: TsqOptions) -> TSQWeightQuantizer:
    axis = spec.channel_axis if spec.axis is None else spec.axis
    return TSQWeightQuantizer(spec.bits, axis, spec.start)


def _activations(spec: GridSpec, options: TsqOptions) -> Any:
    """TSQ's levels for few bits after a ReLU; LSQ's for others, which the paper does not have."""
    if not _is_sparse(spec):
        return LSQ.activations(spec, LsqOptions())  # type: ignore[misc]
    return TSQActivationQuantizer(
        spec.bits,
        spec.upper_limit,
        sparsity=options.sparsity,
        constants=options.constants,
        dead_zone=options.dead_zone,
    )


def _is_sparse(spec: GridSpec) -> bool:
    few = spec.bits <= _FEW_BITS and not spec.from_range
    return few and not (spec.signed or spec.offset or spec.fixed)


def _grid_problem(spec: GridSpec, options: TsqOptions) -> str | None:
    if options.constants != PAPER or not _is_sparse(spec):
        return None
    if spec.bits != 2:
        return f"the constants of the TSQ paper are those of 2 bits, not of {spec.bits}"
    if spec.unnormalized is None:
        return None
    return (
        f"the constants of the TSQ paper hold behind a BatchNormalization without gamma and beta, "
        f"and {spec.unnormalized!r} is none"
    )


TSQ = Method(
    name="tsq",
    options=TsqOptions,
    weights=_weights,
    activations=_activations,
    grid_problem=_grid_problem,
    fit=solve_kernels,
    about=About(
        what="sparse activation levels with float weights, then ternary weights by least squares",
        trains="weights; levels are statistics",
        bits="2 (ternary), and more",
        granularity="channel",
        paper="Wang et al. 2018",
    ),
)
