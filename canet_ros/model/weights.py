# SPDX-License-Identifier: Apache-2.0
"""Weights in safetensors: hashed, read with every tensor's name, shape and numbers checked, and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from canet_ros.errors import ModelError
from canet_ros.files import atomic_write, sha256
from canet_ros.hints import canet_command
from canet_ros.model.untrusted import require_file

if TYPE_CHECKING:  # engines with exported graphs start without torch
    from torch import Tensor

_MAX_BYTES = 2**30
_MAX_HEADER_BYTES = 2**20


def hash_weights(path: Path) -> str:
    """SHA-256 of the file, hex, after a look at its size and its header; raises ModelError if missing or broken."""
    try:
        require_file(path, _MAX_BYTES)
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
        found = sha256(path)
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: copy the whole model folder, or train with '{canet_command('train')}'"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}): fetch it again") from error
    return found


def require_hash(path: Path, expected: str, found: str) -> None:
    """Raise ModelError if the weights are not those that model.yaml was written for; no expectation: any are."""
    if expected and found != expected:
        raise ModelError(
            f"{path} is not the file that model.yaml was written for (SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}...): copy the whole model folder again"
        )


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors by name; raises ModelError where the file cannot be read. Nothing in it is executed."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}): fetch it again") from error


def require_fit(path: Path, described_by: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Check weights (NumPy arrays) against what a network or its file expects (anything with a shape).

    Raises:
        ModelError: a tensor is missing, left over, of another shape or kind, not finite, or a negative variance.
    """
    problems = weight_mismatches(expected, found) or _wrong_numbers(found)
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ModelError(f"{path} does not fit its {described_by}: {'; '.join(problems[:5])}{more}")


def weight_mismatches(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line for every tensor that is missing, left over, or of another shape; both map names to tensors."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} does not exist in this network" for name in found if name not in expected]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and tuple(found[name].shape) != tuple(tensor.shape)
    ]
    return problems


def _wrong_numbers(found: Mapping[str, NDArray[Any]]) -> list[str]:
    problems = []
    for name, numbers in found.items():
        kind = "integers" if name.endswith("num_batches_tracked") else "floating-point numbers"
        if (numbers.dtype.kind == "f") != (kind != "integers"):
            problems.append(f"{name} is of {numbers.dtype}, expected {kind}")
        elif not np.isfinite(numbers).all():
            problems.append(f"{name} contains NaN or infinite values")
        elif name.endswith("running_var") and (numbers < 0).any():
            problems.append(f"{name} contains a negative variance")
    return problems


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors; raises OSError where it cannot."""
    from safetensors.torch import save_file

    with atomic_write(path) as new:
        try:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, new)
        except SafetensorError as error:
            raise OSError(str(error)) from error
