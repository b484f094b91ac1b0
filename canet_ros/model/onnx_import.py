# SPDX-License-Identifier: Apache-2.0
"""Determines how an ONNX network takes images and gives classes, from its graph and from one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto

from canet_ros.model.model_folder import ModelError, Resolution, parse_resolution
from canet_ros.model.onnx_evidence import GraphEvidence, Kind, OutputEvidence
from canet_ros.model.onnx_interface import INPUT, OnnxInterface, Triple, words
from canet_ros.model.onnx_network import (
    channels_and_size,
    graph_inputs,
    pixels_to_output,
    sides_of_ids,
)
from canet_ros.model.onnx_runner import onnx_runner
from canet_ros.names import LAYOUTS, ONNX_OUTPUTS
from canet_ros.opencv import bring_to_size

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Answers:
    """What the user specified about the network, by the options of ``canet import``; None: to be determined."""

    input: str | None = None
    input_layout: str | None = None
    color: str | None = None
    scale: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    resolution: Resolution | None = None
    output: str | None = None
    output_kind: str | None = None
    output_layout: str | None = None


def find_interface(
    network: Any, classes: int | None, answers: Answers, image: NDArray[np.uint8]
) -> tuple[OnnxInterface, Resolution]:
    """The interface and the resolution (width, height) of a graph (onnx.ModelProto).

    Args:
        classes: number of classes; None: not specified.
        image: (H, W, 3) BGR uint8 of any size, to try the network on.

    Raises:
        ModelError: it takes or gives something else than images and classes, or does not run.
        ValueError: the graph leaves something open; the message names all options that specify it.
    """
    values, results = graph_inputs(network), list(network.graph.output)
    missing = [] if classes else ["--classes TABLE, a name or a YAML file of the classes it was trained on"]
    value = _one(values, answers.input, "input", missing)
    result = _one(results, answers.output, "output", missing)
    if value is None or result is None:
        raise _open_questions(missing)
    try:
        evidence = GraphEvidence(onnx.shape_inference.infer_shapes(network))
    except Exception:  # a graph whose shapes cannot be inferred may still run
        evidence = GraphEvidence(network)
    batch, layout, own_size = _input_shape(value, answers, evidence, missing)
    size = answers.resolution or own_size
    if size is None:
        missing.append("--resolution WIDTHxHEIGHT, because the network accepts any size")
    else:
        parse_resolution(f"{size[0]}x{size[1]}")
    if answers.color is None:
        missing.append("--color rgb or bgr, the order of the input's channels")
    kind = value.type.tensor_type.elem_type
    scale, mean, std = _normalisation(answers, kind, evidence.takes_bytes(value.name), missing)
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
        free_size=own_size is None,
        free_batch=batch is None,
        gives=answers.output_kind or "logits",
        output_layout=answers.output_layout or "NCHW",
    )
    free_batch, found = _try(network, interface, size, image)
    interface = replace(interface, free_batch=free_batch)
    if interface.free_size:
        # Exporters declare free sides also where the graph has one size written into it.
        other = (size[0] + 64, size[1] + 64)  # of networks that take multiples of 64 at most
        try:
            _try(network, interface, other, image)
        except ModelError:
            interface = replace(interface, free_size=False)
    floats = result.type.tensor_type.elem_type in _FLOATS
    return _with_output(interface, evidence, classes, answers, found, floats), size


def _input_shape(
    value: Any, answers: Answers, evidence: GraphEvidence, missing: list[str]
) -> tuple[int | None, str, Resolution | None]:
    """Batch, layout and (width, height) of the input; None where the first or the last are free."""
    dims = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise ModelError(
            f"the input {value.name!r} is {words(dims)}: an image has 4 dimensions, B, C, H and W"
        )
    layout = answers.input_layout or _layout(dims, 3) or evidence.input_layout(value.name)
    channels = [dims[side] for side, name in ((1, "NCHW"), (3, "NHWC")) if layout in (None, name)]
    if not {None, 3} & set(channels):
        raise ModelError(
            f"the input {value.name!r} is {words(dims)}{f', as {layout}' if layout else ''}: an image has 3 channels"
        )
    if layout is None:
        missing.append(f"--input-layout {' or '.join(LAYOUTS)}, because the input is {words(dims)}")
        layout = LAYOUTS[0]
    batch, *rest = dims
    height, width = rest[:2] if layout == "NHWC" else rest[1:]
    return batch, layout, (width, height) if width and height else None


def _one(values: Sequence[Any], name: str | None, what: str, missing: list[str]) -> Any | None:
    """The requested value, or the only one."""
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
    return ValueError("the graph does not determine everything; give\n  " + "\n  ".join(missing))


def _layout(dims: Sequence[int | None], channels: int) -> str | None:
    """The layout of a shape, where only one of the two has that many channels."""
    first, last = dims[1] == channels, dims[3] == channels
    if first != last:
        return "NCHW" if first else "NHWC"
    return None


def _normalisation(
    answers: Answers, kind: int, takes_bytes: bool, missing: list[str]
) -> tuple[float, Triple, Triple]:
    """Scale, mean and standard deviation; inputs of whole numbers, and graphs that scale, take pixels as they are.

    Raises:
        ValueError: the three contradict each other, or the graph.
    """
    floats = kind in _FLOATS
    asked = floats or kind == TensorProto.INT8  # whose numbers end at 127, where pixels end at 255
    scale, mean, std = answers.scale, answers.mean or (0.0, 0.0, 0.0), answers.std or (1.0, 1.0, 1.0)
    largest = max(max(map(abs, mean)), max(std))
    if (answers.scale, answers.mean, answers.std) == (None, None, None) and asked and not takes_bytes:
        missing.append(
            "--scale, --mean and --std, for an input of floats or int8: (scale * pixel - mean) / std, in PyTorch often "
            "--scale 1/255 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225; --scale 1 where the graph itself does it"
        )
    elif scale is None and floats and not takes_bytes:
        if (largest > 1) == (any(0 < abs(value) < 1 for value in mean) or min(std) < 1):
            missing.append(
                "--scale: it is unclear whether mean and std refer to pixels of 0 to 255 (--scale 1) or of 0 to 1 "
                "(--scale 1/255)"
            )
        scale = 1.0 if largest > 1 else 1 / 255
    scale = 1.0 if scale is None else scale
    top = 255 * abs(scale)
    too_large = top and (max(map(abs, mean)) > 1.001 * top or max(std) > 1.001 * max(top, 1))
    too_small = top > 2 and all(0 < value < 1 for value in mean) and max(std) < 1
    if too_large or too_small:
        than, right, pixels = ("larger", "1", "0 to 255") if too_large else ("smaller", "1/255", "0 to 1")
        raise ValueError(
            f"--mean {' '.join(f'{x:g}' for x in mean)} --std {' '.join(f'{x:g}' for x in std)}: with a scale of "
            f"{scale:g} pixels are 0 to {top:g}, and these are of {than} ones: give --scale {right} for a mean and std "
            f"of pixels of {pixels}"
        )
    if takes_bytes and floats and 0 < top <= 2:
        raise ValueError(
            f"--scale {scale:g}: the graph itself scales pixels of 0 to 255: give --scale 1, and neither mean nor std"
        )
    return scale, mean, std


def _try(
    network: Any, interface: OnnxInterface, resolution: Resolution, image: NDArray[np.uint8]
) -> tuple[bool, NDArray[np.float32]]:
    """Whether it takes several images at once, and what it gives for one (H, W, 3) BGR uint8 of any size."""
    images = np.empty((2, resolution[1], resolution[0], 3), np.uint8)
    bring_to_size(image, images[0])
    images[1] = images[0, :, ::-1]
    if interface.free_batch:
        # Exporters declare a free batch also where the graph has one image written into it.
        try:
            run = onnx_runner(pixels_to_output(network, interface, resolution))
            together, *single = (run({INPUT: some}) for some in (images, images[:1], images[1:]))
            alone = np.concatenate(single)
            if together.shape == alone.shape and np.allclose(together, alone, atol=1e-2):
                return True, single[0]
        except ModelError:
            pass
    run = onnx_runner(pixels_to_output(network, replace(interface, free_batch=False), resolution))
    return False, run({INPUT: images[:1]})


def _with_output(
    interface: OnnxInterface,
    evidence: GraphEvidence,
    classes: int,
    answers: Answers,
    found: NDArray[np.float32],
    floats: bool,
) -> OnnxInterface:
    """The interface, completed by what the graph and, where it leaves it open, the result determine."""
    if np.isnan(found).any():
        raise ModelError(
            f"the output {interface.output!r} is not a number (NaN) on the image: are scale, mean and std right?"
        )
    shape = list(found.shape)
    of_graph = evidence.output(interface.output)
    one_channel = len(shape) < 4 or 1 in (shape[1], shape[3])
    gives = answers.output_kind or _gives(interface.output, of_graph, found, one_channel, floats)
    name = f"the output {interface.output!r}"
    if gives == "ids":
        sides_of_ids(shape)
        if (found != np.round(found)).any():
            raise ModelError(
                f"{name} contains values that are not integers, as class ids are: choose another --output-kind"
            )
        if of_graph.kind is Kind.IDS and of_graph.classes not in (None, classes):
            raise ModelError(
                f"{name} is the id of one of {of_graph.classes} classes, and the class table has {classes}: give the "
                "table of those that the network was trained on"
            )
        return replace(interface, gives="ids")
    if gives == "probabilities" and (found.min() < -0.5 or found.max() > 1.5):
        raise ModelError(
            f"{name} contains values of {found.min():g} to {found.max():g}, not probabilities: choose another "
            "--output-kind, or export it without the operators that scale them"
        )
    if len(shape) < 4 and len(found) == 1 and classes == 2:
        sides_of_ids(shape)
        return replace(interface, gives=gives)
    if len(shape) != 4:
        raise ModelError(
            f"{name} is {words(shape)}: logits are (B, classes, H, W) or (B, H, W, classes), "
            "class ids (B, H, W); export it so, without flattening or leaving out the channels"
        )
    layout = answers.output_layout or evidence.output_layout(interface.output) or _layout(shape, classes)
    if layout is None and classes == 2:
        layout = _layout(shape, 1)
    if layout is None and shape[1] == shape[3] == classes:
        raise _open_questions(
            [f"--output-layout {' or '.join(LAYOUTS)}, because the output is {words(shape)}"]
        )
    channels = channels_and_size(shape, layout)[0] if layout else 0
    if channels != classes and (channels, classes) != (1, 2):
        raise ModelError(
            f"{name} is {words(shape)}, and the class table has {classes} classes"
            + (f", not {channels} ({layout})" if layout else "")
            + ": give the table of those that the network was trained on"
        )
    if channels == 1 and of_graph.kind is Kind.PROBABILITIES and of_graph.classes == 1:
        raise ModelError(f"{name} is a Softmax over one channel, which is always 1: export it with a Sigmoid")
    return replace(interface, gives=gives, output_layout=layout or "NCHW")


def _gives(
    output: str, of_graph: OutputEvidence, found: NDArray[np.float32], one_channel: bool, floats: bool
) -> str:
    """One of ``ONNX_OUTPUTS``: by graph and type, and only where both leave it open by the values of one image.

    Raises:
        ValueError: all of them leave it open.
    """
    kind = of_graph.kind
    if kind is Kind.IDS:
        return "ids" if one_channel else "probabilities"  # of each class 0 or 1
    if floats and kind in (Kind.LOGITS, Kind.PROBABILITIES):
        return str(kind.value)
    if kind is Kind.UNKNOWN:
        in_range = found.min() >= 0 and found.max() <= 1 + 1e-3
        if one_channel and not floats:
            return "ids"
        if not one_channel and in_range:
            if any(np.allclose(found.sum(axis=axis), 1, atol=1e-3) for axis in (1, 3)):
                return "probabilities"
        elif not one_channel or found.min() < 0 < found.max():
            return "logits"
    elif not one_channel and (floats or kind is not Kind.PROBABILITIES):
        return "logits"  # whose order is right
    numbers = f"{'floats' if floats else 'whole numbers'} of {found.min():g} to {found.max():g} on the image"
    raise _open_questions(
        [
            f"--output-kind {', '.join(ONNX_OUTPUTS[:-1])} or {ONNX_OUTPUTS[-1]}: the output {output!r} is "
            f"{kind.value} by the graph, {numbers}; of one channel, the second class is where logits are above 0, "
            "probabilities above 0.5; or export it without the operators after the last Sigmoid, Softmax or convolution"
        ]
    )
