# SPDX-License-Identifier: Apache-2.0
"""``canet export``: build ahead of a drive what an engine needs, calibrate int8, or write a model as ONNX."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from canet_ros.commands import add_force_argument, argument
from canet_ros.commands.loading import DEFAULT_MODEL
from canet_ros.files import atomic_write, require_writable
from canet_ros.inference.deployment import TARGETS, deployment_graph
from canet_ros.inference.engines import EngineRequest, create_engine
from canet_ros.inference.model_folder import Resolution, find_model, load_spec, parse_resolution
from canet_ros.inference.pictures import PICTURE_SUFFIXES
from canet_ros.inference.quantization import calibrate, keep_scales, quantized_graph
from canet_ros.inference.self_test import PICTURE_FILE, write_self_test
from canet_ros.names import ENGINES, PRECISIONS
from canet_ros.opencv import read_image, resize
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
    parser.add_argument("--max-batch", type=int, default=1, help="pictures per call: the number of cameras")
    parser.add_argument(
        "--calibrate",
        nargs="?",
        const="",
        metavar="DIR",
        help="choose the scales of int8 from the pictures in DIR; without DIR, from drawn street scenes",
    )
    parser.add_argument(
        "--keep-scales",
        action="store_true",
        help="with --calibrate: write what was found into the model's folder, for int8 at any resolution anywhere",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=60,
        metavar="N",
        help="how many of them to use, evenly spread (default: 60)",
    )
    parser.add_argument(
        "--selftest",
        nargs="?",
        const="",
        metavar="DIR",
        help="store in the model's folder the most telling picture of DIR (without DIR, of drawn streets) and its "
        "mask, with which every engine is tested when it starts; again after each change of the weights",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the ONNX graph that --engine reads here, and build no engine (auto, torch: any reader's, in fp32); "
        "the batch is free: trtexec takes it as 1, or from --shapes=images:4x512x1024x3",
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
        pictures = (
            _pictures(Path(arguments.selftest), spec.resolution, arguments.pictures)
            if arguments.selftest
            else _vivid_scenes(spec.resolution)
        )
        fault = write_self_test(folder, pictures)
        print(f"{folder / PICTURE_FILE}: an engine with swapped channels would come to {fault.agreement:.1%}")
        return 0
    if arguments.calibrate is not None:
        if arguments.precision not in ("auto", "int8"):
            raise ValueError(f"--calibrate is for --precision int8, not {arguments.precision}")
        arguments.precision = "int8"
        pictures = (
            _pictures(Path(arguments.calibrate), resolution, arguments.pictures)
            if arguments.calibrate
            else _drawn_scenes(resolution, arguments.pictures)
        )
        print(calibrate(folder, resolution, pictures))
        if arguments.keep_scales:
            print(keep_scales(folder, resolution))
    if arguments.out:
        target = arguments.engine if arguments.engine in TARGETS else "onnxruntime"
        precision = arguments.precision
        if precision == "auto":
            precision = "fp16" if target == "tensorrt" else "fp32"
        elif precision == "bf16" and arguments.engine == "auto":
            target = "openvino"
        graph = deployment_graph(folder, resolution, target, precision)
        with atomic_write(arguments.out) as new:
            shutil.copyfile(graph, new)
        print(arguments.out)
        return 0
    if arguments.precision == "int8":
        quantized_graph(folder, resolution)  # to build it is the job; elsewhere auto goes on without it
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
    for sentence in engine.passed_over:
        print(sentence)
    return 0


def _pictures(folder: Path, resolution: Resolution, count: int) -> list[NDArray[np.uint8]]:
    """Up to ``count`` pictures of a folder and its subfolders, BGR, at the resolution."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    # Label pictures are no calibration: in a data set's folder, take those under images/.
    paths = [path for path in paths if "images" in path.parts] or paths
    if not paths:
        raise ValueError(f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, count).astype(int))]
    pictures = []
    for path in tqdm(chosen, desc="pictures", disable=None):
        pictures.append(resize(read_image(path), resolution, cv2.INTER_AREA))
    return pictures


def _vivid_scenes(resolution: Resolution) -> list[NDArray[np.uint8]]:
    """Drawn streets in garish colours: networks trained under any light hardly mind swapped channels in others."""
    scenes = _drawn_scenes(resolution, SELF_TEST_SCENES)
    greys = [scene.mean(2, keepdims=True) for scene in scenes]
    return [np.clip(grey + 8 * (scene - grey), 0, 255).astype(np.uint8) for scene, grey in zip(scenes, greys)]


def _drawn_scenes(resolution: Resolution, count: int) -> list[NDArray[np.uint8]]:
    scenes = (StreetDrive(seed, 640, 480).frame(10 * seed).image for seed in range(count))
    return [resize(scene, resolution, cv2.INTER_AREA) for scene in scenes]
