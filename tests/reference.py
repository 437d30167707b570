"""Float64 NumPy twins, written from the papers' formulas, one element or one bin at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def lsq(value: float, step: float, qmin: int, qmax: int) -> tuple[float, float, float]:
    """LSQ of one number (Esser et al., equations 1-3 and 5): (v_hat, dv_hat/dv, dv_hat/ds)."""
    ratio = value / step
    if ratio <= qmin:
        return qmin * step, 0.0, float(qmin)
    if ratio >= qmax:
        return qmax * step, 0.0, float(qmax)
    code = math.floor(ratio + 0.5)
    return code * step, 1.0, code - ratio


def lsq_of_bits(value: float, step: float, bits: int) -> tuple[float, float, float]:
    """LSQ of one weight of `bits`: its sign at 1 bit, with LSQ's gradients; nothing at 0."""
    if bits == 0:
        return 0.0, 0.0, 0.0
    if bits > 1:
        half = 2 ** (bits - 1)
        return lsq(value, step, -half + (bits == 8), half - 1)
    ratio = value / step
    code = 1.0 if ratio >= 0 else -1.0
    inside = -1 < ratio < 1
    return code * step, float(inside), code - ratio if inside else code


def lsq_tensor(
    values: np.ndarray, step: np.ndarray, qmin: int, qmax: int, axis: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`lsq` over a tensor, with a step per channel along `axis` or one step."""
    values = np.asarray(values, np.float64)
    out = [np.empty_like(values) for _ in range(3)]
    for index in np.ndindex(values.shape):
        own = float(step) if axis is None else float(step[index[axis]])
        for target, number in zip(out, lsq(values[index], own, qmin, qmax), strict=True):
            target[index] = number
    return out[0], out[1], out[2]


def lsq_plus(
    value: float, step: float, offset: float, bits: int
) -> tuple[float, float, float, float]:
    """LSQ+ of one number (Bhalgat et al., section 3), the offset a whole number of steps:
    (v_hat, dv_hat/dv, dv_hat/ds, dv_hat/doffset)."""
    top = 2**bits - 1
    zero_point = min(max(math.floor(0.5 - offset / step), 0), top)
    ratio = value / step + zero_point
    if ratio <= 0:
        return -zero_point * step, 0.0, 0.0, 1.0
    if ratio >= top:
        return (top - zero_point) * step, 0.0, float(top), 1.0
    code = math.floor(ratio + 0.5)
    return (code - zero_point) * step, 1.0, code - ratio, 0.0


def bin_penalty(
    weights: np.ndarray, step: float, qmin: int, qmax: int, damping: float = 0.0
) -> float:
    """Bin regularization (Han et al., equations 5-7) as a loop over bins: mean term + variance, of
    which `damping` more members are taken to lie on the level."""
    weights = np.asarray(weights, np.float64).ravel()
    codes = _codes(weights, step, qmin, qmax)
    total = 0.0
    for code in range(qmin, qmax + 1):
        members = weights[codes == code]
        if members.size:
            own = (members.mean() - code * step) ** 2 + members.var()
            total += own * members.size / (members.size + damping)
    return total


def proximal_bin_step(
    weights: np.ndarray, step: float, qmin: int, qmax: int, strength: float, rate: float
) -> np.ndarray:
    """The u with least strength * bin_penalty(u) + sum((u - weights)^2) / (2 rate), codes held:
    each is where both parts' derivatives cancel."""
    weights = np.asarray(weights, np.float64)
    codes = _codes(weights, step, qmin, qmax)
    moved = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        stiffness, level = strength / np.sum(codes == codes[index]), codes[index] * step
        moved[index] = (2 * stiffness * level + weights[index] / rate) / (2 * stiffness + 1 / rate)
    return moved


def bin_gradients(
    weights: np.ndarray, step: float, qmin: int, qmax: int
) -> tuple[np.ndarray, float]:
    """d penalty / d weights and d penalty / d step, bin by bin, with the codes held."""
    shape = np.shape(weights)
    weights = np.asarray(weights, np.float64).ravel()
    codes = _codes(weights, step, qmin, qmax)
    to_weights, to_step = np.zeros_like(weights), 0.0
    for code in range(qmin, qmax + 1):
        members = codes == code
        if members.any():
            to_weights[members] = 2 * (weights[members] - code * step) / members.sum()
            to_step -= 2 * code * (weights[members].mean() - code * step)
    return to_weights.reshape(shape), to_step


def _codes(weights: np.ndarray, step: float, qmin: int, qmax: int) -> np.ndarray:
    return np.floor(np.clip(weights / step, qmin, qmax) + 0.5).astype(int)


def least_squares_step(weights, qmin, qmax, count=20001):
    """The step of least squared error among `count`, for one row of weights."""
    widest = max(np.max(weights) / qmax, np.min(weights) / qmin)
    best = (np.inf, 0.0)
    for step in np.linspace(widest / 200, widest * 1.2, count):
        error = sum(
            (w - min(max(math.floor(w / step + 0.5), qmin), qmax) * step) ** 2 for w in weights
        )
        best = min(best, (error, step))
    return best[1], best[0]


def tqt(value: float, log2_threshold: float, qmin: int, qmax: int) -> tuple[float, float, float]:
    """TQT of one number (Jain et al., equations 4-8), halves up: (q, dq/dx, dq/dlog2 t)."""
    scale = 2.0 ** math.ceil(log2_threshold) / (qmax + 1)
    code = math.floor(value / scale + 0.5)
    if code < qmin:
        return qmin * scale, 0.0, scale * math.log(2.0) * qmin
    if code > qmax:
        return qmax * scale, 0.0, scale * math.log(2.0) * qmax
    return code * scale, 1.0, scale * math.log(2.0) * (code - value / scale)


def gdrq(
    weights: np.ndarray, k: float, bits: int, masked: bool = False
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale-Clip and the quantizer behind it (Yu et al. 2020, as read here) of one group of
    weights, one by one: (T, q, dq/dw), with two's complement codes."""
    weights = np.asarray(weights, np.float64)
    total = 0.0
    for index in np.ndindex(weights.shape):
        total += abs(weights[index])
    threshold = k * total / weights.size
    scale, half = threshold / 2 ** (bits - 1), 2 ** (bits - 1)
    quantized, slopes = np.empty_like(weights), np.ones_like(weights)
    for index in np.ndindex(weights.shape):
        code = math.floor(min(max(weights[index] / scale, -half), half - 1) + 0.5)
        quantized[index] = code * scale
        if masked and abs(weights[index]) > threshold:
            slopes[index] = 0.0
    return threshold, quantized, slopes


def mean_squared_error(
    weights: np.ndarray, step: float, qmin: int, qmax: int
) -> tuple[float, np.ndarray, float]:
    """The mean squared distance of weights from their levels, weight by weight, and its derivatives
    for the weights and the step."""
    weights = np.asarray(weights, np.float64)
    count, total, to_step = weights.size, 0.0, 0.0
    to_weights = np.empty_like(weights)
    for index in np.ndindex(weights.shape):
        code = math.floor(min(max(weights[index] / step, qmin), qmax) + 0.5)
        distance = weights[index] - code * step
        total += distance**2 / count
        to_weights[index] = 2.0 * distance / count
        to_step -= 2.0 * code * distance / count
    return total, to_weights, to_step


class Freezing:
    """Iterative freezing (Nagel et al. 2022, section 4.2) of one weight, step by step.

    Attributes:
        frozen: the code it is held at, None while it is free.
    """

    def __init__(self, momentum: float, first: float, last: float, begin: float) -> None:
        self.momentum, self.first, self.last, self.begin = momentum, first, last, begin
        self.frequency, self.direction = 0.0, 0
        self.average: float | None = None
        self.frozen: int | None = None

    def step(self, before: int, after: int, progress: float) -> None:
        """Take note of a step from one code to another."""
        change = (after > before) - (after < before)
        oscillates = change != 0 and self.direction not in (0, change)
        self.frequency += self.momentum * (float(oscillates) - self.frequency)
        self.average = before if self.average is None else self.average
        self.average += self.momentum * (after - self.average)
        self.direction = change or self.direction
        if progress < self.begin or self.frozen is not None:
            return
        turn = math.pi * (progress - self.begin) / (1.0 - self.begin)
        threshold = self.last + (self.first - self.last) * (1.0 + math.cos(turn)) / 2.0
        if self.frequency > threshold:
            self.frozen = math.floor(self.average + 0.5)


def transition_rate(
    own_rate: float, share: float, changed: float, progress: float, bits: int, options: Any
) -> tuple[float, float]:
    """TRS (Lee et al. 2025, section 3.3): (U, K) after a step that changed this share of codes."""
    share = options.momentum * share + (1.0 - options.momentum) * changed
    wanted = options.rate * math.sqrt(bits) * (1.0 + math.cos(math.pi * progress)) / 2.0
    return max(0.0, own_rate + options.gain * (wanted - share)), share


def soft_classes(taught: np.ndarray, logits: np.ndarray, temperature: float) -> tuple[Any, Any]:
    """T^2 KL of softened classes (Hinton et al., 2015): one sample's loss, and its gradient for the
    student's logits. Both are logits, one a class."""

    def softened(values: np.ndarray) -> np.ndarray:
        raised = [math.exp(float(value) / temperature) for value in values]
        return np.array(raised) / sum(raised)

    p, q = softened(taught), softened(logits)
    loss = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * loss, temperature * (q - p)


def soft_labels(taught: np.ndarray, logits: np.ndarray, temperature: float) -> tuple[Any, Any]:
    """The mean of `soft_classes` over labels, each yes or no, and its gradient."""
    losses, gradients = [], []
    for theirs, own in zip(taught, logits, strict=True):
        loss, (slope, _) = soft_classes(np.array([theirs, 0.0]), np.array([own, 0.0]), temperature)
        losses.append(loss)
        gradients.append(slope)
    return np.mean(losses), np.array(gradients) / len(gradients)


def dampening(
    weights: np.ndarray, step: float, qmin: int, qmax: int, channels: int
) -> tuple[float, np.ndarray]:
    """Nagel et al.'s dampening of a kernel whose output channels lie on the last axes, `channels`
    in all: the sum over them of their mean, and its derivative for the weights."""
    weights = np.asarray(weights, np.float64)
    rows = weights.reshape(-1, channels)
    total, to_weights = 0.0, np.zeros_like(rows)
    for channel in range(channels):
        for index, weight in enumerate(rows[:, channel]):
            if not qmin * step <= weight <= qmax * step:
                continue  # clipped, it lies on its level
            distance = weight - math.floor(weight / step + 0.5) * step
            total += distance**2 / len(rows)
            to_weights[index, channel] = 2.0 * distance / len(rows)
    return total, to_weights.reshape(weights.shape)


def kurtosis_error(weights: np.ndarray, target: float, kernels: int) -> tuple[float, np.ndarray]:
    """The squared distance of the weights' kurtosis from the target, over the number of kernels,
    and its derivative for the weights (Shkolnik et al., equations 14 and 15)."""
    weights = np.asarray(weights, np.float64)
    deviation = math.sqrt(np.mean((weights - weights.mean()) ** 2))
    z = (weights - weights.mean()) / deviation
    kurtosis = np.mean(z**4)
    slope = 4.0 / weights.size / deviation * (z**3 - np.mean(z**3) - kurtosis * z)
    error = kurtosis - target
    return error**2 / kernels, 2.0 * error * slope / kernels


def tsq(value: float, step: float, dead_zone: float | None, qmax: int) -> tuple[float, float]:
    """TSQ's activation of one number (Wang et al. 2018, as in the authors' released net):
    (Q, dQ/dx). Without a dead zone it ends at half the step, halves up."""
    code = min(max(math.floor(value / step + 0.5), 0), qmax)
    if dead_zone is not None:
        code = max(code, 1) if value > dead_zone else 0
    return code * step, float(0.0 < value < qmax * step)


def sparse_gaussian(dead_zone: float, qmax: int) -> float:
    """The step of the least squared error of normal numbers above the dead zone, on the codes 1 to
    `qmax`, by fine sums: the best of 591 steps, then D = E[x q] / E[q^2] again and again."""
    x = np.linspace(dead_zone, 7.0, 10001)
    density = np.exp(-(x**2) / 2.0)
    best = (np.inf, 0.0)
    for step in np.linspace(0.05, 3.0, 591):
        codes = np.clip(np.floor(x / step + 0.5), 1, qmax)
        best = min(best, (float(np.sum(density * (x - codes * step) ** 2)), step))
    step = best[1]
    for _ in range(60):
        codes = np.clip(np.floor(x / step + 0.5), 1, qmax)
        step = float(np.sum(density * x * codes) / np.sum(density * codes * codes))
    return step


def best_ternary(weights: np.ndarray) -> float:
    """The least ||w - alpha t||^2 over all t in {-1, 0, 1}^n, by trying them."""
    weights = np.asarray(weights, np.float64)
    least = float(np.sum(weights**2))
    for codes in np.ndindex(*(3,) * weights.size):
        t = np.array(codes) - 1.0
        if np.any(t):
            alpha = float(weights @ t) / float(t @ t)
            least = min(least, float(np.sum((weights - alpha * t) ** 2)))
    return least


def tsq_sweep(
    inputs: np.ndarray, wanted: np.ndarray, codes: np.ndarray, scale: float, qmax: int
) -> np.ndarray:
    """Coordinate descent of one output (TSQ's step 2): code after code, the one with the least
    ||wanted - scale * inputs @ codes||^2, by trying all of them."""
    codes = np.array(codes, np.float64)
    for j in range(codes.size):
        errors = []
        for code in range(-qmax, qmax + 1):
            codes[j] = code
            errors.append(float(np.sum((wanted - scale * inputs @ codes) ** 2)))
        codes[j] = int(np.argmin(errors)) - qmax
    return codes


def tsq_target(target: float, output: float, eta: float, low: float, high: float) -> float:
    """The z with the least (y - clip(z))^2 + eta (z - v)^2, on a fine grid."""
    reach = max(abs(output), abs(target), abs(low), abs(high)) + 1.0
    z = np.linspace(-reach, reach, 200001)
    cost = (target - np.clip(z, low, high)) ** 2 + eta * (z - output) ** 2
    return float(z[np.argmin(cost)])


def alq_coordinates(
    targets: np.ndarray, curvature: np.ndarray, coordinates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ALQ's step on one group (Qu et al. 2020): each weight takes the nearest sum of coordinates
    with signs, then a = (B H B^T)^-1 B H t. The coordinates, without signs, and the bases (weights,
    coordinates), with the signs of negative coordinates in them."""
    signs = [np.array(s) * 2.0 - 1.0 for s in np.ndindex(*(2,) * len(coordinates))]
    bases = []
    for target in targets:
        best = min(signs, key=lambda own: abs(float(own @ coordinates) - float(target)))
        bases.append(best)
    b = np.array(bases)
    solved = np.linalg.solve(b.T @ np.diag(curvature) @ b, b.T @ (curvature * targets))
    return np.abs(solved), b * np.where(solved < 0.0, -1.0, 1.0)


def least_power_step(
    values: np.ndarray, qmin: int, qmax: int, p: float, count: int = 4001
) -> tuple[float, float]:
    """Of `count` evenly spaced steps the one with the least mean |Q(x) - x|^p, number by number, as
    LAPQ (Nahshan et al. 2019) chooses clips; and that mean."""
    best = (np.inf, 0.0)
    for step in np.linspace(0.0, np.max(np.abs(values)), count)[1:]:
        total = 0.0
        for value in values:
            code = min(max(math.floor(value / step + 0.5), qmin), qmax)
            total += abs(code * step - value) ** p
        best = min(best, (total / len(values), step))
    return best[1], best[0]


def bias_correction(
    weights: np.ndarray, quantized: np.ndarray, inputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a matrix product with quantized weights lacks on average, output by output; and the part
    of it that the mean error of each output's weights makes, -mean_c * E[sum of the inputs]."""
    count, outputs = weights.shape
    change, by_mean = np.zeros(outputs), np.zeros(outputs)
    for output in range(outputs):
        error = [float(quantized[i, output]) - float(weights[i, output]) for i in range(count)]
        for row in inputs:
            change[output] -= sum(x * e for x, e in zip(row, error, strict=True)) / len(inputs)
            by_mean[output] -= sum(row) * sum(error) / count / len(inputs)
    return change, by_mean


def bit_planes(
    positive: list[float], negative: list[float], step: float, upstream: float = 1.0
) -> tuple[float, list[float], list[float], float]:
    """BSQ of one weight from its live planes, lowest first: (value, dv/dp, dv/dn, dv/dstep)."""
    top = 2 ** len(positive) - 1
    total = sum(2**k * (p - n) for k, (p, n) in enumerate(zip(positive, negative, strict=True)))
    code = math.floor(min(max(total, -top), top) + 0.5)
    slopes = [2**k * step * upstream for k in range(len(positive))]
    return code * step, slopes, [-slope for slope in slopes], code * upstream


def bit_lasso(
    positive: np.ndarray, negative: np.ndarray, live: int, total: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """BSQ's penalty on a kernel of `total` weights in all, plane by plane, and its gradients."""
    value, gradients = 0.0, [np.zeros(positive.shape), np.zeros(negative.shape)]
    for k in range(len(positive)):
        squares = [float(x) ** 2 for part in (positive[k], negative[k]) for x in part.ravel()]
        norm = math.sqrt(1e-8 + sum(squares))
        share = live * positive[k].size / total
        value += share * (norm - 1e-4)
        for gradient, part in zip(gradients, (positive[k], negative[k]), strict=True):
            gradient[k] = share * part / norm
    return value, gradients[0], gradients[1]


def categorical(
    value: float, step: float, width: float, ranges: list[tuple[int, int]], gates: list[float]
) -> dict[int, float]:
    """CPQ's pi of every code (Lee et al. 2021, as read here): shares of a logistic distribution
    around the number, times the gate of the innermost range that has the code."""

    def sigmoid(z: float) -> float:
        return 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else 0.0

    def between(low: float, high: float) -> float:
        a, b = (low - value) / width, (high - value) / width
        # The tail that is small.
        return sigmoid(b) - sigmoid(a) if a + b < 0.0 else sigmoid(-a) - sigmoid(-b)

    masses = {}
    for code in range(ranges[-1][0], ranges[-1][1] + 1):
        own = [low <= code <= high for low, high in ranges]
        gate = [1.0, *gates][own.index(True)]
        masses[code] = gate * between(step * (code - 0.5), step * (code + 0.5))
    total = sum(masses.values())
    return {code: mass / total for code, mass in masses.items()}


def cpq(
    value: float,
    step: float,
    width: float,
    ranges: list[tuple[int, int]],
    gates: list[float],
    backward: str,
) -> tuple[int, float, float, float, list[float]]:
    """CPQ of one number: the code of the largest pi, and what the backward pass takes for the
    derivatives of the output: for value, step, log width and gates, by central differences."""
    pi = categorical(value, step, width, ranges, gates)
    code = max(pi, key=lambda own: pi[own])

    def output(x: float, a: float, s: float, z: list[float]) -> float:
        now = categorical(x, a, s, ranges, z)
        if backward == "multiclass_ste":
            return step * code * now[code]
        return step * sum(i * p for i, p in now.items())

    def slope(change: Any) -> float:
        return (output(*change(1e-6)) - output(*change(-1e-6))) / 2e-6

    to_gates = [
        slope(lambda e, k=k: (value, step, width, [*gates[:k], gates[k] + e, *gates[k + 1 :]]))
        for k in range(len(gates))
    ]
    return (
        code,
        slope(lambda e: (value + e, step, width, gates)),
        code + slope(lambda e: (value, step + e, width, gates)),
        slope(lambda e: (value, step, width * math.exp(e), gates)),
        to_gates,
    )


def open_probability(log_alpha: float, count: int = 200001) -> float:
    """P(z > 0) of a hard-concrete gate (Louizos et al., equations 10-12), by trying even u."""
    u = (np.arange(count) + 0.5) / count
    s = 1.0 / (1.0 + np.exp(-(np.log(u) - np.log(1.0 - u) + log_alpha) * 1.5))
    return float(np.mean(s * 1.2 - 0.1 > 0.0))


def mirror_tanh(weight: float, scale: float, beta: float, bits: int) -> tuple[float, float]:
    """The projected weight of mirror descent (Ajanthan et al. 2021) with tanh, or the mean of two
    shifted ones at 2 bits, and its derivative for the scale, the projection taken as fixed."""
    dual = weight / scale
    if bits == 1:
        projected = math.tanh(beta * dual)
    else:
        projected = (math.tanh(beta * (dual + 0.5)) + math.tanh(beta * (dual - 0.5))) / 2.0
    return scale * projected, projected


def mirror_softmax(
    duals: Sequence[float], scale: float, beta: float, levels: Sequence[int]
) -> float:
    """The projected weight of mirror descent with softmax: one number for each level."""
    shares = [math.exp(beta * (dual - max(duals))) for dual in duals]
    return scale * sum(p * q for p, q in zip(shares, levels, strict=True)) / sum(shares)


def closed_form_tanh(projected: float, beta: float, change: float) -> float:
    """MD-tanh's update of a projected weight for a step `change` of the optimizer."""
    grown = (1.0 + projected) / (1.0 - projected) * math.exp(2.0 * beta * change)
    return (grown - 1.0) / (grown + 1.0)


def closed_form_softmax(
    shares: Sequence[float], beta: float, changes: Sequence[float]
) -> np.ndarray:
    """MD-softmax's update of the shares of the levels: the exponentiated gradient."""
    grown = [p * math.exp(beta * change) for p, change in zip(shares, changes, strict=True)]
    return np.array(grown) / sum(grown)
