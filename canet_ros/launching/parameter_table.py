# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: the node declares them, launch files take them as arguments, and ``make generated`` writes
config/canet.yaml and docs/reference/parameters.md from them. Needs neither rclpy nor torch.
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
            "image_topics", ("image_raw",), "Raw image topics of the cameras",
            "/front/image_raw gives /front/segmentation/mask, /front/segmentation/overlay and so on, so each camera "
            "needs its own namespace. With another image_transport, still give the raw topic.",
            parser=formats.parse_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "results_name", "segmentation", "Namespace of the results, relative to the camera's namespace",
            "With vision, /front/image_raw gives /front/vision/mask.",
            parser=formats.parse_results_name, needs_cleanup=True,
        ),
        ParameterSpec(
            "image_transport", "raw", "Transport of the camera images",
            "compressed subscribes to JPEG, PNG or TIFF images on <topic>/compressed; ffmpeg and foxglove subscribe to "
            "video on <topic>/ffmpeg (FFMPEGPacket) and <topic>/foxglove (CompressedVideo), which needs PyAV and the "
            "package of the messages.",
            choices=TRANSPORTS, needs_cleanup=True,
        ),
    ),
    "Model": (
        ParameterSpec(
            "architecture", "canet", "Network architecture",
            "canet is the network of the paper, canet_lite a faster variant.", choices=tuple(ARCHITECTURES),
        ),
        ParameterSpec("backbone", "mobilenet_v2", "Backbone of the context branch", choices=tuple(BACKBONES)),
        ParameterSpec(
            "model", "", "Name or folder of the model; empty: the shipped model for architecture and backbone",
            "A name is that of a folder under models/. An active node loads and tests a new model beside the one in "
            "use, which stays if the new one fails.",
            live=True,
        ),
        ParameterSpec(
            "resolution", "",
            "Network input size, WIDTHxHEIGHT in pixels; empty: the model's own; camera: the camera's aspect ratio",
            "For example 480x360. Images are scaled to this size; a smaller one is faster and misses small objects. "
            "camera keeps the model's number of pixels in the aspect ratio of the first image, and prepares the engine "
            "when that arrives; all cameras must have the same aspect ratio.",
            parser=formats.parse_wanted_resolution,
        ),
    ),
    "Inference": (
        ParameterSpec(
            "device", "auto", "Device for inference: auto, cpu, cuda, cuda:N or, with TensorRT, dla:N",
            "auto uses the GPU if there is one. cuda:N is the N-th GPU, dla:N a deep learning accelerator of Jetson "
            "Orin.",
            parser=formats.parse_device,
        ),
        ParameterSpec(
            "engine", "auto", "Inference engine", "auto uses the fastest one available on the device.",
            choices=("auto", *ENGINES),
        ),
        ParameterSpec(
            "precision", "auto", "Numeric precision of the network",
            "auto uses the fastest one without loss of accuracy.", choices=("auto", *PRECISIONS),
        ),
    ),
    "Results": (
        ParameterSpec(
            "regions", ("",),
            "Region of each camera's image to segment, x,y,width,height in pixels; empty: the whole image",
            "One entry per camera, in the order of image_topics. Pixels outside are 255 (unlabelled); results keep the "
            "camera's size.",
            parser=formats.parse_region,
        ),
        ParameterSpec(
            "rotations", (0,), "Clockwise rotation that turns each camera's image upright: 0, 90, 180 or 270 degrees",
            "The network receives the upright image; results have the orientation of the camera image.",
            parser=formats.parse_rotation,
        ),
        ParameterSpec(
            "ignore_masks", ("",), "PNG file per camera that is white where the image is ignored; empty: no mask",
            "For the bonnet or a wiper. Every pixel that is not 0 becomes 255 (unlabelled) with confidence 0. The mask "
            "is scaled to the image.",
        ),
        ParameterSpec(
            "mask_size", "image", "Size of the results: that of the camera image or of the network input",
            "network gives smaller messages.", choices=MASK_SIZES,
        ),
        ParameterSpec(
            "cloud_topics", ("",), "PointCloud2 topic per camera whose points are labelled; empty: none",
            "From a lidar or depth camera. Points inside the image are published on segmentation/points with label, "
            "confidence and colour. Requires the camera's camera_info.",
            parser=formats.parse_optional_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "cloud_extrinsics", ("",),
            "Transform from each cloud's frame to the camera's optical frame, x,y,z,qx,qy,qz,qw; empty: from tf2",
            "Translation in m and rotation as a quaternion. tf2 is used where tf2_ros is installed.",
            parser=formats.parse_pose, needs_cleanup=True,
        ),
        ParameterSpec(
            "depth_topics", ("",), "Depth image topic per camera, aligned to its image and labelled; empty: none",
            "16UC1 in mm or 32FC1 in m; a topic that ends in /compressedDepth is compressed (PNG or RVL). The points "
            "are published on segmentation/points. Requires the camera's camera_info.",
            parser=formats.parse_optional_topic, needs_cleanup=True,
        ),
        ParameterSpec(
            "organized_points", False, "Publish organized clouds of the mask's size, NaN where nothing was measured",
            "For layers that walk through mask and cloud together. Points that the camera does not see are left out.",
            live=True,
        ),
        ParameterSpec(
            "sync_slop", 0.05,
            "Maximum difference between the stamps of an image and its cloud or depth image, and of merged images, s",
            minimum=0.0, maximum=10.0, live=True,
        ),
        ParameterSpec(
            "groups", "", "Groups of classes, {name: [class, ...]}, each published as a mask groups/<name> (255 or 0)",
            "For example {drivable: [road], people: [pedestrian, bicyclist]}, in quotes on the command line and for "
            "ros2 param set. ros2 param get /canet class_names lists the classes. With clouds or depth images, also "
            "publishes groups/<name>/points and groups/<name>/points_outside.",
            parser=formats.parse_groups, live=True,
        ),
        ParameterSpec(
            "min_object_area", 100, "Minimum area of an object on the topic objects, pixels of the mask",
            "Objects are connected components of groups: those that touch are one. Requires groups and vision_msgs.",
            minimum=1, maximum=100_000_000, live=True,
        ),
        ParameterSpec(
            "shares_smoothing", 0.5, "Time constant of the smoothed class shares on the topic shares, s; 0: none",
            "After this time, 63 % of a change has taken effect.", minimum=0.0, maximum=3600.0, live=True,
        ),
        ParameterSpec(
            "min_confidence", 0.0, "Pixels with lower confidence become unlabelled (255)",
            "Applies to mask, color_mask, overlay and groups.", minimum=0.0, maximum=1.0, live=True,
        ),
        ParameterSpec(
            "steady", False, "Reduce flicker with a temporal filter over successive masks",
            "A pixel changes its class when the new one is confident or lasts for two images.", live=True,
        ),
        ParameterSpec(
            "overlay_alpha", 0.5, "Opacity of the class colours in the overlay",
            "0.0 shows the camera image alone, 1.0 the colours alone.", minimum=0.0, maximum=1.0, live=True,
        ),
        ParameterSpec(
            "jpeg_quality", 80, "JPEG quality of overlay/compressed", minimum=1, maximum=100, live=True,
        ),
        ParameterSpec("legend", False, "Draw a legend of class names and colours into the overlay"),
        ParameterSpec(
            "palette", "dataset", "Class colours: those of the data set, or distinguishable with colour blindness",
            choices=PALETTES,
        ),
    ),
    "Free space": (
        ParameterSpec(
            "ground_group", "", "Group of classes that are ground, for ground/scan and ground/grid; empty: neither",
            "A name in groups. Requires camera_info and the camera's pose over the ground; see "
            "docs/tutorials/navigate-with-free-space.md.",
            needs_cleanup=True,
        ),
        ParameterSpec(
            "base_frame", "base_link",
            "Frame of ground/scan and ground/grid, whose x and y axes are parallel to the ground",
            needs_cleanup=True,
        ),
        ParameterSpec(
            "camera_extrinsics", ("",),
            "Pose of each camera's optical frame in base_frame, x,y,z,qx,qy,qz,qw; empty: from tf2",
            "Translation in m and rotation as a quaternion, as for static_transform_publisher.",
            parser=formats.parse_pose, needs_cleanup=True,
        ),
        ParameterSpec(
            "ground_range", 20.0, "Range of the free space around base_frame, m",
            minimum=1.0, maximum=200.0, needs_cleanup=True,
        ),
        ParameterSpec(
            "ground_resolution", 0.1, "Size of the cells of ground/grid, m",
            "At this range, neighbouring bearings of ground/scan are this far apart.",
            minimum=0.01, maximum=2.0, needs_cleanup=True,
        ),
        ParameterSpec(
            "ground_size", 0.0, "Side of ground/grid, m; 0, or more than twice the range: twice the range",
            minimum=0.0, maximum=400.0, needs_cleanup=True,
        ),
        ParameterSpec(
            "ground_heights", "0.0,0.45",
            "Heights in base_frame of the ground and of the highest lower edge of an obstacle, low,high in m",
            "Ground that is seen under a body of that height, as between the wheels of a car, is not free.",
            parser=formats.parse_heights, needs_cleanup=True,
        ),
        ParameterSpec(
            "ground_min_confidence", 0.3, "Pixels with lower confidence are neither ground nor obstacle",
            minimum=0.0, maximum=1.0, needs_cleanup=True,
        ),
    ),
    "Load": (
        ParameterSpec(
            "max_rate", 0.0, "Maximum rate of segmented images per camera, Hz; 0: unlimited",
            minimum=0.0, maximum=1000.0, live=True,
        ),
        ParameterSpec(
            "max_age", 0.0, "Frames older than this when inference starts are dropped, s; 0: unlimited",
            "The age is measured from the stamp.", minimum=0.0, maximum=60.0, live=True,
        ),
    ),
    "Operation": (
        ParameterSpec(
            "autostart", True, "Configure and activate the node at start",
            "With false, the node waits for a lifecycle manager or ros2 lifecycle set.", at_start=True,
        ),
        ParameterSpec(
            "bond_timeout", 4.0, "Silence after which the lifecycle manager's bond counts as broken, s; 0: no bond",
            "With bondpy, the active node holds a bond with Nav2's lifecycle manager, which detects the loss of the "
            "node at once.",
            minimum=0.0, maximum=3600.0,
        ),
        ParameterSpec(
            "diagnostics_period", 1.0, "Period of /diagnostics, s", minimum=0.1, maximum=60.0
        ),
        ParameterSpec(
            "stale_after", 2.0, "Time without an image after which a camera is reported as stale, s",
            minimum=0.1, maximum=3600.0,
        ),
        ParameterSpec(
            "inference_timeout", 10.0, "Time after which inference may count as hung, s",
            "It must also take ten times as long as the slowest inference so far. The node then exits with status 70.",
            minimum=0.1, maximum=3600.0, live=True,
        ),
        ParameterSpec(
            "max_pixels", 100_000_000, "Maximum number of pixels of an image; larger images are refused",
            "The header of a JPEG or PNG is checked before memory is allocated.",
            minimum=1, maximum=1_000_000_000, live=True,
        ),
    ),
}  # fmt: skip
PARAMETERS = tuple(spec for section in SECTIONS.values() for spec in section)
