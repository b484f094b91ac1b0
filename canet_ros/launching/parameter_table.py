# SPDX-License-Identifier: Apache-2.0
"""The node's parameters, once: the node declares them, launch files offer them, and ``make generated`` writes
config/canet.yaml and docs/parameters.md from them. Pure data, so that a launch file can read it.
"""

from __future__ import annotations

from canet_ros import formats
from canet_ros.launching.parameter_spec import ParameterSpec
from canet_ros.names import (
    ARCHITECTURES,
    BACKBONES,
    ENGINES,
    MASK_SIZES,
    PALETTES,
    PRECISIONS,
    TRANSPORTS,
)

SECTIONS = {
    "Cameras": (
        ParameterSpec(
            "image_topics", ("image_raw",), "Camera topics; results stand beside each, under segmentation/",
            "/front/image_raw gives /front/segmentation/mask, /front/segmentation/overlay and so on, so each camera "
            "needs a namespace of its own. Give the name of the raw topic also where image_transport is compressed.",
            form=formats.parse_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "results_name", "segmentation", "Name under which the results of a camera stand beside its image",
            "With vision, /front/image_raw gives /front/vision/mask.",
            form=formats.parse_results_name, needs_cleanup=True,
        ),
        ParameterSpec(
            "image_transport", "raw", "How the camera images come",
            "raw: image_topics themselves; compressed: JPEG or PNG on <topic>/compressed.",
            choices=TRANSPORTS, needs_cleanup=True,
        ),
    ),
    "Model": (
        ParameterSpec(
            "architecture", "canet", "Network", "canet is the paper's, canet_lite is faster.",
            choices=tuple(ARCHITECTURES),
        ),
        ParameterSpec("backbone", "mobilenet_v2", "Backbone of the context branch", choices=tuple(BACKBONES)),
        ParameterSpec(
            "model", "", "Model by name or folder; empty: the shipped one for architecture and backbone",
            "A name is that of a folder under models/; a folder is given by its path.",
        ),
        ParameterSpec(
            "resolution", "",
            "WIDTHxHEIGHT of the network's input; empty: the model's own; camera: in the camera's shape",
            "Pixels, for example 480x360; images are scaled to it. Smaller is faster and loses small things. camera: "
            "as many pixels as the model's own, in the shape of the first image that comes, for which the engine is "
            "made then; all cameras must have that shape.",
            form=formats.parse_wanted_resolution,
        ),
    ),
    "Where it runs": (
        ParameterSpec(
            "device", "auto", "auto, cpu, cuda, cuda:N or, with TensorRT, dla:N",
            "auto: the GPU if there is one; cuda:N: the N-th GPU; dla:N: a deep learning accelerator of Jetson Orin.",
            form=formats.parse_device,
        ),
        ParameterSpec(
            "engine", "auto", "What runs the network", "auto: the fastest there is on the device.",
            choices=("auto", *ENGINES),
        ),
        ParameterSpec(
            "precision", "auto", "Numbers the network computes with",
            "auto: the fastest that does not cost accuracy.", choices=("auto", *PRECISIONS),
        ),
    ),
    "Results": (
        ParameterSpec(
            "regions", ("",),
            "Part of each camera's image that is segmented: x,y,width,height in pixels; empty: all",
            "One for each camera in the order of image_topics. Outside everything is 255 (unlabelled); results keep "
            "the camera's size.",
            form=formats.parse_region,
        ),
        ParameterSpec(
            "rotations", (0,), "Degrees clockwise that bring each camera's image upright: 0, 90, 180 or 270",
            "The network sees it upright, the results lie on the image as it comes.", form=formats.parse_rotation,
        ),
        ParameterSpec(
            "ignore_masks", ("",), "PNG for each camera, white where nothing is to be segmented; empty: none",
            "The bonnet, a wiper: everything there (not 0) is 255 (unlabelled), its confidence 0. Scaled to the image.",
        ),
        ParameterSpec(
            "mask_size", "image", "Size of the results: the camera's or the network's",
            "image: pixel on pixel; network: smaller messages.", choices=MASK_SIZES,
        ),
        ParameterSpec(
            "cloud_topics", ("",), "PointCloud2 for each camera, whose points that it sees get labels; empty: none",
            "Of a lidar or depth camera. The points come out on segmentation/points with label, confidence and colour. "
            "It takes the camera's camera_info.",
            form=formats.parse_optional_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "cloud_extrinsics", ("",),
            "From each cloud's frame to the camera's optical frame: x,y,z,qx,qy,qz,qw; empty: by tf2",
            "In m and as a quaternion. tf2 is asked where tf2_ros is installed.",
            form=formats.parse_pose, needs_cleanup=True,
        ),
        ParameterSpec(
            "depth_topics", ("",), "Depth image aligned to each camera's, whose points get labels; empty: none",
            "16UC1 in mm or 32FC1 in m, raw. The points come out on segmentation/points too. It takes the camera's "
            "camera_info.",
            form=formats.parse_optional_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "sync_slop", 0.05, "Stamps of image and cloud or depth image may differ by this, s",
            minimum=0.0, maximum=10.0, live=True,
        ),
        ParameterSpec(
            "groups", "", "Groups of classes {name: [class, ...]}: each is published as groups/<name>, 255 or 0",
            "For example {drivable: [road], people: [pedestrian, bicyclist]}; on the command line and for ros2 param "
            "set the same in quotes. Classes: ros2 param get /canet class_names.",
            form=formats.parse_groups, live=True,
        ),
        ParameterSpec(
            "min_confidence", 0.0, "Pixels whose confidence is below are unlabelled (255)",
            "In mask, colour mask, overlay and groups.", minimum=0.0, maximum=1.0, live=True,
        ),
        ParameterSpec(
            "steady", False, "Let a pixel change its class when the new one is sure or stays: less flicker",
            "A class stays when two images in a row have it.", live=True,
        ),
        ParameterSpec(
            "overlay_alpha", 0.5, "Weight of the colours in the overlay",
            "0.0 is the camera image, 1.0 the colours alone.", minimum=0.0, maximum=1.0, live=True,
        ),
        ParameterSpec(
            "jpeg_quality", 80, "Quality of compressed overlays", "JPEG, on overlay/compressed.",
            minimum=1, maximum=100, live=True,
        ),
        ParameterSpec("legend", False, "Draw the class names into the overlay", "With their colours."),
        ParameterSpec(
            "palette", "dataset", "Class colours: the data set's or ones that colour-blind people can tell apart",
            choices=PALETTES,
        ),
    ),
    "Load": (
        ParameterSpec(
            "max_rate", 0.0, "Most frames per second and camera, Hz; 0: all", minimum=0.0, maximum=1000.0, live=True
        ),
        ParameterSpec(
            "max_age", 0.0, "Frames older than this when their turn comes are dropped, s; 0: never",
            "By their stamp.", minimum=0.0, maximum=60.0, live=True,
        ),
    ),
    "Operation": (
        ParameterSpec(
            "autostart", True, "Configure and activate at start",
            "false: the node waits for a lifecycle manager or ros2 lifecycle set.", at_start=True,
        ),
        ParameterSpec(
            "bond_timeout", 4.0, "With bondpy: a lifecycle manager silent for this long counts as gone, s; 0: no bond",
            "Where bondpy is installed, the node bonds with Nav2's lifecycle manager while it is active, which so "
            "hears at once that the node is gone.",
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
            "The engine is started again then.", minimum=0.1, maximum=3600.0, live=True,
        ),
        ParameterSpec(
            "max_pixels", 100_000_000, "Images of more pixels are refused, before memory is taken for them",
            "Also where it is only a JPEG's or PNG's header that claims so many.",
            minimum=1, maximum=1_000_000_000, live=True,
        ),
    ),
}  # fmt: skip
PARAMETERS = tuple(spec for section in SECTIONS.values() for spec in section)
