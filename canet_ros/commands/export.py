# SPDX-License-Identifier: Apache-2.0
"""``canet export``: prepare an engine in advance, calibrate int8, store a self-test, or write a model as ONNX."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import DEFAULT_MODEL
from canet_ros.engines import EngineRequest, create_engine
from canet_ros.files import atomic_write, require_writable
from canet_ros.hints import pip_install
from canet_ros.model.deployment import TARGETS, calibrate, deployment_graph, keep_scales, quantized_graph
from canet_ros.model.model_folder import NETWORK_FILE, Resolution, find_model, load_spec, parse_resolution
from canet_ros.names import ENGINES, PRECISIONS
from canet_ros.opencv import read_image, resize
from canet_ros.pipeline.image_files import IMAGE_SUFFIXES
from canet_ros.pipeline.self_test import IMAGE_FILE, vivid, write_self_test
from canet_ros.simulation import StreetDrive

SELF_TEST_SCENES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model by name or folder")
    parser.add_argument("--engine", default="auto", choices=("auto", *ENGINES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or, with TensorRT, dla:N")
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument(
        "--resolution", type=argument(parse_resolution), metavar="WxH", help="default: the model's own"
    )
    parser.add_argument("--max-batch", type=int, default=1, help="images per batch: the number of cameras")
    parser.add_argument(
        "--calibrate",
        nargs="?",
        const="",
        metavar="DIR",
        help="determine the int8 scales from the images in DIR; without DIR, from synthetic street scenes",
    )
    parser.add_argument(
        "--keep-scales",
        action="store_true",
        help="with --calibrate: store the scales in the model folder, for int8 at any resolution on any machine",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=60,
        metavar="N",
        help="number of these images to use, evenly spaced (default: 60)",
    )
    parser.add_argument(
        "--selftest",
        nargs="?",
        const="",
        metavar="DIR",
        help="store a self-test in the model folder, with which every engine is tested when it starts: the most "
        "discriminating image of DIR (without DIR, of synthetic streets) and its mask; repeat after changing weights",
    )
    parser.add_argument(
        "--network",
        action="store_true",
        help="write network.onnx into the model's folder: other engines then run the model without PyTorch",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the ONNX graph for the selected engine and do not build the engine (auto, torch: a portable graph "
        "in fp32); the batch size is dynamic: for trtexec, 1 or as in --shapes=images:4x512x1024x3",
    )
    add_force_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if min(arguments.max_batch, arguments.pictures) < 1:
        raise ValueError("--max-batch and --pictures must be 1 or more")
    require_writable(arguments.out, replace=arguments.force)
    folder = find_model(arguments.model)
    spec = load_spec(folder)
    resolution = arguments.resolution or spec.resolution
    if arguments.selftest is not None:
        count = arguments.pictures if arguments.selftest else SELF_TEST_SCENES
        images = _images(arguments.selftest, spec.resolution, count)
        images = images if arguments.selftest else [vivid(image) for image in images]
        worst = write_self_test(folder, images)
        print(f"{folder / IMAGE_FILE}: an engine with swapped channels would reach {worst:.1%}")
        return 0
    if arguments.network:
        if spec.onnx is not None:
            raise ValueError(f"--network: model {spec.name} is an ONNX network already")
        if importlib.util.find_spec("torch") is None:
            raise ModuleNotFoundError(f"--network requires PyTorch: {pip_install('torch')}")
        from canet_ros.model.network_export import write_network

        write_network(folder)
        print(folder / NETWORK_FILE)
        return 0
    if arguments.calibrate is not None:
        if arguments.precision not in ("auto", "int8"):
            raise ValueError(f"--calibrate is for --precision int8, not {arguments.precision}")
        arguments.precision = "int8"
        images = _images(arguments.calibrate, resolution, arguments.pictures)
        print(quantized := calibrate(folder, resolution, images))
        if arguments.keep_scales:
            print(keep_scales(folder, quantized, resolution))
    if arguments.out:
        target = arguments.engine if arguments.engine in TARGETS else "onnxruntime"
        precision = arguments.precision
        if precision == "auto":
            precision = "fp16" if target == "tensorrt" else "fp32"
        elif precision == "bf16" and arguments.engine == "auto":
            target = "openvino"
        graph = deployment_graph(folder, resolution, target, precision)
        with atomic_write(arguments.out) as temporary:
            shutil.copyfile(graph, temporary)
        print(arguments.out)
        return 0
    if arguments.precision == "int8":
        quantized_graph(folder, resolution)  # raises here; create_engine would fall back without it
    start_s = time.monotonic()
    engine = create_engine(
        EngineRequest(
            folder,
            resolution,
            arguments.engine,
            arguments.device,
            arguments.precision,
            arguments.max_batch,
            prebuilt_only=False,
        )
    )
    print(
        f"{engine.name} on {engine.device}, {engine.precision}, ready in {time.monotonic() - start_s:.1f} s"
    )
    print(engine.reason)
    for sentence in engine.fallback_reasons:
        print(sentence)
    return 0


def _images(folder: str, resolution: Resolution, count: int) -> list[NDArray[np.uint8]]:
    """Up to ``count`` images of a folder and its subfolders, or of synthetic streets, BGR, at the resolution."""
    if not folder:
        scenes = (StreetDrive(seed, 640, 480).frame(10 * seed).image for seed in range(count))
        return [resize(scene, resolution, cv2.INTER_AREA) for scene in scenes]
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    # In a data set, use the images under images/ and not the label images.
    paths = [path for path in paths if "images" in path.parts] or paths
    if not paths:
        raise ValueError(f"{folder} contains no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).astype(int))]
    bar = tqdm(chosen, desc="images", disable=None)
    return [resize(read_image(path), resolution, cv2.INTER_AREA) for path in bar]
