# SPDX-License-Identifier: Apache-2.0
"""The node's parameters, once: the node declares them, the launch files offer them, the documentation is tested
against them. Pure data, so that a launch file can read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from canet_ros.names import (
    ARCHITECTURES,
    BACKBONES,
    ENGINES,
    MASK_SIZES,
    PALETTES,
    PRECISIONS,
    TRANSPORTS,
)

Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        default: its value when nobody sets it; its type is the parameter's type.
        choices: for text, the values allowed; empty: any.
        minimum, maximum: for numbers, the closed range allowed.
        live: whether it may change at any time; the others change while the node is not active.
        needs_cleanup: whether it may change only while the node is not even configured.
        at_start: whether it is read once, when the process starts.
    """

    name: str
    default: Value
    description: str
    choices: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 0.0
    live: bool = False
    needs_cleanup: bool = False
    at_start: bool = False


PARAMETERS = (
    ParameterSpec(
        "image_topics", ("image_raw",), "Camera topics; results stand beside each, under segmentation/",
        needs_cleanup=True,
    ),
    ParameterSpec(
        "results_name", "segmentation", "Name under which the results of a camera stand beside its image",
        needs_cleanup=True,
    ),
    ParameterSpec(
        "image_transport", "raw", "How the camera images come", choices=TRANSPORTS, needs_cleanup=True
    ),
    ParameterSpec("architecture", "canet", "Network", choices=tuple(ARCHITECTURES)),
    ParameterSpec("backbone", "mobilenet_v2", "Backbone of the context branch", choices=tuple(BACKBONES)),
    ParameterSpec(
        "model", "", "Model by name or folder; empty: the shipped one for architecture and backbone"
    ),
    ParameterSpec(
        "resolution", "", "WIDTHxHEIGHT of the network's input; empty: the model's own; camera: in the camera's shape"
    ),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:N"),
    ParameterSpec("engine", "auto", "What runs the network", choices=("auto", *ENGINES)),
    ParameterSpec("precision", "auto", "Numbers the network computes with", choices=("auto", *PRECISIONS)),
    ParameterSpec(
        "regions", ("",), "Part of each camera's image that is segmented: x,y,width,height in pixels; empty: all"
    ),
    ParameterSpec(
        "rotations", (0,), "Degrees clockwise that bring each camera's image upright: 0, 90, 180 or 270"
    ),
    ParameterSpec(
        "ignore_masks", ("",), "PNG for each camera, white where nothing is to be segmented; empty: none"
    ),
    ParameterSpec(
        "mask_size", "image", "Size of the results: the camera's or the network's", choices=MASK_SIZES
    ),
    ParameterSpec(
        "cloud_topics", ("",), "PointCloud2 for each camera, whose points that it sees get labels; empty: none",
        needs_cleanup=True,
    ),
    ParameterSpec(
        "cloud_extrinsics", ("",),
        "From each cloud's frame to the camera's optical frame: x,y,z,qx,qy,qz,qw; empty: by tf2",
        needs_cleanup=True,
    ),
    ParameterSpec(
        "depth_topics", ("",), "Depth image aligned to each camera's, whose points get labels; empty: none",
        needs_cleanup=True,
    ),
    ParameterSpec(
        "sync_slop", 0.05, "Stamps of image and cloud or depth image may differ by this, s",
        minimum=0.0, maximum=10.0, live=True,
    ),
    ParameterSpec(
        "groups", "", "Groups of classes {name: [class, ...]}: each is published as groups/<name>, 255 or 0", live=True
    ),
    ParameterSpec(
        "min_confidence", 0.0, "Pixels whose confidence is below are unlabelled (255)",
        minimum=0.0, maximum=1.0, live=True,
    ),
    ParameterSpec(
        "steady", False, "Let a pixel change its class when the new one is sure or stays: less flicker", live=True
    ),
    ParameterSpec(
        "overlay_alpha", 0.5, "Weight of the colours in the overlay", minimum=0.0, maximum=1.0, live=True
    ),
    ParameterSpec(
        "max_rate", 0.0, "Most frames per second and camera, Hz; 0: all", minimum=0.0, maximum=1000.0, live=True
    ),
    ParameterSpec(
        "max_age", 0.0, "Frames older than this when their turn comes are dropped, s; 0: never",
        minimum=0.0, maximum=60.0, live=True,
    ),
    ParameterSpec("jpeg_quality", 80, "Quality of compressed overlays", minimum=1, maximum=100, live=True),
    ParameterSpec("legend", False, "Draw the class names into the overlay"),
    ParameterSpec(
        "palette", "dataset", "Class colours: the data set's or ones that colour-blind people can tell apart",
        choices=PALETTES,
    ),
    ParameterSpec("autostart", True, "Configure and activate at start", at_start=True),
    ParameterSpec(
        "bond_timeout", 4.0, "With bondpy: a lifecycle manager silent for this long counts as gone, s; 0: no bond",
        minimum=0.0, maximum=3600.0,
    ),
    ParameterSpec(
        "diagnostics_period", 1.0, "Seconds between two messages on /diagnostics", minimum=0.1, maximum=60.0
    ),
    ParameterSpec(
        "stale_after", 2.0, "A camera silent for this long is reported as stale, s", minimum=0.1, maximum=3600.0
    ),
    ParameterSpec(
        "inference_timeout", 10.0,
        "An inference that takes longer, and ten times longer than before, counts as hung, s",
        minimum=0.1, maximum=3600.0, live=True,
    ),
    ParameterSpec(
        "max_pixels", 100_000_000, "Images of more pixels are refused, before memory is taken for them",
        minimum=1, maximum=1_000_000_000, live=True,
    ),
)  # fmt: skip
