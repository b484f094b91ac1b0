# SPDX-License-Identifier: Apache-2.0
"""Weights and biases in bf16 or fp16 without the shift that rounding gives the mean of every layer's output.

A rounded weight is off by the same amount at every pixel, and so is a rounded bias: unlike the rounding of pixels, it
does not average out, and in a MobileNetV2 it costs more classes than everything else together. So weights are rounded
up or down such that the mean output of every channel stays; Nagel et al. (Data-Free Quantization, ICCV 2019, section
4.2) correct the mean in the bias, but engines round that too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def round_convolution(
    weight: Floats, bias: Floats | None, mean: Floats, precision: str, taps: int = 0
) -> tuple[Floats, Floats | None]:
    """Weight and bias, float32 still, with values that ``precision`` (bf16, fp16) holds exactly.

    Args:
        weight: (out, in / groups, y, x); of a transposed convolution (in, out, y, x).
        bias: (out,).
        mean: (in,) mean of each input channel.
        taps: of a transposed convolution stride^2, of which an output sees one; else 0.
    """
    ours = weight
    if taps:
        ours = weight.swapaxes(0, 1)
        mean = mean / np.float32(taps)
    rows = ours.reshape(len(ours), -1)  # one per output channel
    groups = 1 if taps else len(mean) // weight.shape[1]
    inputs = np.repeat(mean.reshape(groups, -1), len(rows) // groups, 0)
    inputs = np.repeat(inputs, rows.shape[1] // inputs.shape[1], 1)
    missing = np.zeros(len(rows), np.float32)
    if bias is not None:
        rounded_bias = _nearest(bias, precision)
        missing, bias = bias - rounded_bias, rounded_bias
    rounded = round_rows(rows, inputs, missing, precision).reshape(ours.shape)
    return np.ascontiguousarray(rounded.swapaxes(0, 1) if taps else rounded), bias


def round_rows(rows: Floats, inputs: Floats, missing: Floats, precision: str) -> Floats:
    """Round each row (rows, N) so that its product with ``inputs`` (rows, N) grows by ``missing`` (rows,).

    Starts from the nearest number that ``precision`` (bf16, fp16) holds and takes the other neighbour where that
    brings the product closer, largest changes first.
    """
    rounded = _nearest(rows, precision)
    away_from_zero = np.where(np.abs(rows) > np.abs(rounded), 1, -1)
    other = _float(_bits(rounded, precision) + away_from_zero, precision)
    other = np.where(rounded == 0, rounded, other)
    changes = (other - rounded) * inputs
    missing = missing + ((rows - rounded) * inputs).sum(1)
    order = np.argsort(-np.abs(changes), 1, kind="stable")
    ordered = np.take_along_axis(changes, order, 1)
    taken = np.zeros(ordered.shape, bool)
    for i in range(ordered.shape[1]):
        taken[:, i] = np.abs(missing - ordered[:, i]) < np.abs(missing)
        missing = missing - ordered[:, i] * taken[:, i]
    chosen = np.zeros(ordered.shape, bool)
    np.put_along_axis(chosen, order, taken, 1)
    return np.where(chosen, other, rounded).astype(np.float32)


def _nearest(numbers: Floats, precision: str) -> Floats:
    return _float(_bits(numbers, precision), precision)


def _bits(numbers: Floats, precision: str) -> NDArray[np.int64]:
    """The 16 bits of the nearest number, ties to even."""
    if precision == "fp16":
        return numbers.astype(np.float16).view(np.uint16).astype(np.int64)
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32).astype(np.int64)
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def _float(bits: NDArray[np.int64], precision: str) -> Floats:
    if precision == "fp16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return (bits << 16).astype(np.uint32).view(np.float32)
