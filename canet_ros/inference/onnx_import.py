# SPDX-License-Identifier: Apache-2.0
"""Find out how a network that is not ours takes pictures and gives classes: from its graph, and from one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from canet_ros.inference.export import INPUT
from canet_ros.inference.model_folder import ModelError, Resolution, parse_resolution
from canet_ros.inference.onnx_interface import OnnxInterface, Triple
from canet_ros.inference.onnx_network import (
    channels_and_size,
    graph_inputs,
    is_float,
    onnx_runner,
    pixels_to_output,
    sides_of_ids,
    words,
)
from canet_ros.inference.segmenter import bring_to_size
from canet_ros.names import LAYOUTS

_PROBABILITY_OPERATORS = frozenset(("Softmax", "Sigmoid", "HardSigmoid"))
# What an exporter may put after them, and leaves probabilities what they are.
_TRANSPARENT = frozenset(
    (
        "Cast",
        "Clip",
        "Identity",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    )
)


@dataclass(frozen=True)
class Answers:
    """What the user said of the network; None where it is to be found out. As ``OnnxInterface`` has them."""

    input: str | None = None
    input_layout: str | None = None
    color: str | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resolution: Resolution | None = None
    output: str | None = None
    gives: str | None = None
    output_layout: str | None = None


def find_interface(
    network: Any, classes: int | None, answers: Answers, picture: NDArray[np.uint8]
) -> tuple[OnnxInterface, Resolution]:
    """The interface and the resolution (width, height) of a graph (onnx.ModelProto).

    Args:
        classes: how many; None if nobody said.
        picture: (H, W, 3) BGR uint8 of any size, to try the network on.

    Raises:
        ModelError: it takes or gives something else than pictures and classes, or does not run.
        ValueError: the graph leaves something open; the message names all options that say it.
    """
    values, results = graph_inputs(network), list(network.graph.output)
    if not values or not all(value.type.HasField("tensor_type") for value in (*values, *results)):
        raise ModelError(
            "the graph has inputs or outputs that are no tensors: export it with a picture as its input"
        )
    if not results:
        raise ModelError("the graph has no output")
    missing = [] if classes else ["--classes TABLE, a name or a YAML file of the classes it was trained on"]
    value = _one(values, answers.input, "input", missing)
    result = _one(results, answers.output, "output", missing)
    if value is None or result is None:
        raise _open_questions(missing)
    kind = value.type.tensor_type.elem_type
    dims = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(
            f"the input {value.name!r} is {words(dims)}: a picture has 4 dimensions, B, C, H and W"
        )
    layout = answers.input_layout or _layout(dims, 3)
    channels = [dims[side] for side, name in ((1, "NCHW"), (3, "NHWC")) if layout in (None, name)]
    if not {None, 3} & set(channels):
        raise ModelError(
            f"the input {value.name!r} is {words(dims)}{f', as {layout}' if layout else ''}: a picture has 3 channels"
        )
    if layout is None:
        missing.append(f"--input-layout {' or '.join(LAYOUTS)}, for the input is {words(dims)}")
        layout = LAYOUTS[0]
    batch, *rest = dims
    height, width = rest[:2] if layout == "NHWC" else rest[1:]
    if batch not in (None, 1):
        raise ModelError(
            f"the input {value.name!r} takes {batch} pictures at once: export it with a batch of 1 or any"
        )
    size = answers.resolution or ((width, height) if width and height else None)
    if size is None:
        missing.append("--resolution WIDTHxHEIGHT, for the network takes any size")
    else:
        parse_resolution(f"{size[0]}x{size[1]}")
    if answers.color is None:
        missing.append("--color rgb or bgr, the order of the input's channels")
    scale, mean, std = _normalisation(answers, kind, missing)
    if size is None or classes is None or missing:
        raise _open_questions(missing)
    interface = OnnxInterface(
        input=value.name,
        output=result.name,
        input_layout=layout,
        color=answers.color or "",
        scale=scale,
        mean=mean,
        std=std,
        free_size=not (width and height),
        free_batch=batch is None,
        gives=answers.gives or "logits",
        output_layout=answers.output_layout or "NCHW",
    )
    resized = np.empty((size[1], size[0], 3), np.uint8)
    bring_to_size(picture, resized)
    free_batch, found = _try(network, interface, size, resized)
    interface = replace(interface, free_batch=free_batch)
    return _with_output(interface, network, classes, answers, found, result.type.tensor_type.elem_type), size


def _one(values: Sequence[Any], name: str | None, what: str, missing: list[str]) -> Any | None:
    """The value that was asked for, or the only one."""
    names = ", ".join(value.name for value in values)
    if name is None and len(values) == 1:
        return values[0]
    if name is None:
        missing.append(f"--{what} NAME, one of {names}")
        return None
    chosen = [value for value in values if value.name == name]
    if not chosen:
        raise ModelError(f"the graph has no {what} {name!r}, only {names}")
    return chosen[0]


def _open_questions(missing: Sequence[str]) -> ValueError:
    return ValueError("the graph does not say everything; give\n  " + "\n  ".join(missing))


def _layout(dims: Sequence[int | None], channels: int) -> str | None:
    """The layout of a shape, where only one of the two has that many channels."""
    first, last = dims[1] == channels, dims[3] == channels
    if first != last:
        return "NCHW" if first else "NHWC"
    return None


def _normalisation(answers: Answers, kind: int, missing: list[str]) -> tuple[float, Triple, Triple]:
    """Scale, mean and standard deviation; whole-number inputs take pixels as they are."""
    asked = is_float(kind) or kind == TensorProto.INT8  # whose numbers end at 127, where pixels end at 255
    if (answers.scale, answers.mean, answers.std) == (None, None, None) and asked:
        missing.append(
            "--scale, --mean and --std, for an input of floats or int8: (scale * pixel - mean) / std, in PyTorch often "
            "--scale 1/255 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225; --scale 1 where the graph itself does it"
        )
    mean, std = answers.mean or (0.0, 0.0, 0.0), answers.std or (1.0, 1.0, 1.0)
    if answers.scale is not None:
        return answers.scale, mean, std
    # Means of pixels of 0..255 are over 1, those of pixels of 0..1 are not.
    of_bytes = not is_float(kind) or max(abs(value) for value in mean) > 1
    return 1.0 if of_bytes else 1 / 255, mean, std


def _try(
    network: Any, interface: OnnxInterface, resolution: Resolution, picture: NDArray[np.uint8]
) -> tuple[bool, NDArray[np.float32]]:
    """Whether it takes several pictures at once, and what it gives for one."""
    if interface.free_batch:
        # Exporters declare a free batch also where the graph has one picture written into it.
        try:
            run = onnx_runner(pixels_to_output(network, interface, resolution))
            one, two = (run({INPUT: np.stack([picture] * count)}) for count in (1, 2))
            if (
                two.shape[1:] == one.shape[1:]
                and len(two) == 2 * len(one)
                and np.allclose(two[1], one[0], atol=1e-2)
            ):
                return True, one
        except ModelError:
            pass
    run = onnx_runner(pixels_to_output(network, replace(interface, free_batch=False), resolution))
    return False, run({INPUT: picture[None]})


def _with_output(
    interface: OnnxInterface,
    network: Any,
    classes: int,
    answers: Answers,
    found: NDArray[np.float32],
    kind: int,
) -> OnnxInterface:
    """The interface, completed by what came out."""
    if np.isnan(found).any():
        raise ModelError(
            f"the output {interface.output!r} is not a number (NaN) on the picture: are scale, mean and std right?"
        )
    shape = list(found.shape)
    whole = not is_float(kind) or bool((found == np.round(found)).all())
    one_channel = len(shape) < 4 or 1 in (shape[1], shape[3])
    if (answers.gives or ("ids" if whole and one_channel else "")) == "ids":
        sides_of_ids(shape)
        return replace(interface, gives="ids")
    if len(shape) != 4:
        raise ModelError(
            f"the output {interface.output!r} is {words(shape)}: logits are (B, classes, H, W) or (B, H, W, classes), "
            "class ids (B, H, W); export it so, without flattening or leaving out the channels"
        )
    layout = answers.output_layout or _layout(shape, classes)
    if layout is None and classes == 2:
        layout = _layout(shape, 1)
    if layout is None and shape[1] == shape[3] == classes:
        raise _open_questions([f"--output-layout {' or '.join(LAYOUTS)}, for the output is {words(shape)}"])
    channels = channels_and_size(shape, layout)[0] if layout else 0
    if channels != classes and (channels, classes) != (1, 2):
        raise ModelError(
            f"the output {interface.output!r} is {words(shape)}, and the class table has {classes} classes"
            + (f", not {channels} ({layout})" if answers.output_layout else "")
            + ": give the table of those that the network was trained on"
        )
    gives = answers.gives or (
        "probabilities" if _are_probabilities(network, interface, found, layout) else "logits"
    )
    return replace(interface, gives=gives, output_layout=layout or "NCHW")


def _are_probabilities(
    network: Any, interface: OnnxInterface, found: NDArray[np.float32], layout: str | None
) -> bool:
    if found.min() < 0 or found.max() > 1 + 1e-3:
        return False
    channels = found.sum(axis=3 if layout == "NHWC" else 1)
    return _ends_in_probabilities(network, interface.output) or bool(np.allclose(channels, 1, atol=1e-3))


def _ends_in_probabilities(network: Any, output: str) -> bool:
    producers = {name: node for node in network.graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type in _TRANSPARENT:
        node = producers.get(node.input[0])
    return node is not None and node.op_type in _PROBABILITY_OPERATORS
