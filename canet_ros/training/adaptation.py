# SPDX-License-Identifier: Apache-2.0
"""Adapt a model to a few labelled images of a drive, and compare it with the model it started from."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from canet_ros.errors import EngineError
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.deployment import calibrate, keep_scales
from canet_ros.model.model_folder import ModelError, ModelSpec, load_network, load_spec, save_model, save_spec
from canet_ros.model.network_export import write_network
from canet_ros.opencv import read_image, resize
from canet_ros.pipeline.ood_monitor import in_distribution_range
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.pipeline.self_test import vivid, write_self_test
from canet_ros.simulation import write_scenes
from canet_ros.training.calibration import calibrate_temperature
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import ExtraData, LabelledImage, find_split, ignore_warning
from canet_ros.training.evaluate import compare_with_labels, evaluate
from canet_ros.training.initialization import initialize
from canet_ros.training.metrics import Scores, scores
from canet_ros.training.setup import default_epochs
from canet_ros.training.train import seconds_per_epoch

CHANGED_IMAGES = 6  # shown in the report
_BATCH_SIZE = 8
_INT8_IMAGES = 60
_SELF_TEST_IMAGES = 8
# Weights halfway between those before and after the training: on a drive it gains as much as the training alone or
# more, and loses little of the old domain (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
_TUNED_SHARE = 0.5
_LEAST_STEPS = 240
_LEAST_STEPS_OF_NEW_CLASSES = 600
# Images of the old domain per image of the drive.
_REPLAY_SHARE = 1.0
_SYNTHETIC_SHARE = 0.5
_SYNTHETIC_SCENES = {"train": 100, "val": 20}
_FIRST_SEED = {"train": 40_000, "val": 50_000}
_TRAINING_SHARE = 0.75  # of the time budget; int8 scales and the comparison take the rest


@dataclass(frozen=True)
class ChangedImage:
    """An image, masks before and after the adaptation, and its labels; ``share`` of the pixels changed their class."""

    name: str
    share: float
    image: NDArray[np.uint8]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class BeforeAndAfter:
    """Metrics of both models on the same images, and the images that changed most, most changed first."""

    images: int
    before: Scores
    after: Scores
    changed: list[ChangedImage]

    @property
    def gain(self) -> float:
        """Increase of the mIoU."""
        return self.after.miou - self.before.miou


def gather_drives(drives: Sequence[Path], data: Path) -> tuple[int, int]:
    """Link the labelled images of drives into ``data/train`` and ``data/val``; earlier links are replaced.

    A drive keeps its own val; without one, the last fifth of each recording is held out (``find_split``).

    Returns:
        The numbers of images to train on and held out.

    Raises:
        ValueError: as ``find_split``, or a drive has fewer than two images.
        OSError: the links cannot be written.
    """
    splits: dict[str, list[tuple[str, LabelledImage]]] = {"train": [], "val": []}
    for index, drive in enumerate(drives):
        prefix = f"{index}-" if len(drives) > 1 else ""
        for split, images in splits.items():
            images += [(prefix, image) for image in find_split(drive, split)]
    if data.exists():
        shutil.rmtree(data)
    for split, images in splits.items():
        for prefix, image in images:
            for kind, file in (("images", image.image), ("labels", image.label)):
                (data / split / kind).mkdir(parents=True, exist_ok=True)
                os.symlink(file.resolve(), data / split / kind / f"{prefix}{file.name}")
    return len(splits["train"]), len(splits["val"])


def gather_replay(
    given: Path | None, classes: ClassTable, model: ModelSpec, replay: Path
) -> ExtraData | None:
    """Labelled images of the model's old domain in ``replay/train`` and ``replay/val``, to train on and to measure.

    Args:
        given: folder as of ``canet train``; None: synthetic streets, if the classes are those of the simulation.
        classes: that the adapted model will have.

    Returns:
        What to train on; None: there is nothing to replay.

    Raises:
        ValueError: as ``gather_drives``, or the labels would be read with other classes.
    """
    if given is None:
        if classes.names != load_class_table("camvid").names:
            return None
        for split, count in _SYNTHETIC_SCENES.items():
            if len(list((replay / split / "labels").glob("*.png"))) != count:
                write_scenes(replay / split, count, first_seed=_FIRST_SEED[split])
        return ExtraData(str(replay / "train"), _SYNTHETIC_SHARE)
    if classes.names != model.classes.names:
        raise ValueError(
            f"replay {given}: its labels must have the classes of {model.name}, and --classes has others"
        )
    gather_drives([given], replay)
    return ExtraData(str(replay / "train"), _REPLAY_SHARE)


def adaptation_config(
    model: Path, classes: ClassTable, data: Path, images: int, name: str, replay: ExtraData | None, seed: int
) -> TrainingConfig:
    """Training settings for this number of images; ``epochs`` is the length that serves them best.

    Args:
        model: folder of the model to start from.
        classes: that the adapted model will have.
        data: folder written by ``gather_drives``.
        replay: labelled images of the model's old domain, which keep it from being forgotten.

    Raises:
        ValueError: the model is an imported ONNX network.
    """
    spec = load_spec(model)
    if spec.onnx is not None:
        raise ValueError(f"{model} is an imported ONNX network, which cannot be trained")
    width, height = (max(32, side // 32 * 32) for side in spec.resolution)
    batch_size = min(_BATCH_SIZE, images)
    least_steps = _LEAST_STEPS_OF_NEW_CLASSES if _new_classes(classes, spec) else _LEAST_STEPS
    steps_per_epoch = images * (1 + (replay.share or 0 if replay else 0)) / batch_size
    return TrainingConfig(
        data=str(data),
        name=name,
        data_licence=_licence(spec),
        architecture=spec.architecture,
        backbone=spec.backbone,
        fusion=spec.fusion,
        head=spec.head,
        extra_data=(replay,) if replay else (),
        init=str(model),
        freeze_stem=True,
        resolution=spec.resolution,
        crop=(width, height),
        epochs=default_epochs(max(1, int(steps_per_epoch)), least_steps),
        batch_size=batch_size,
        learning_rate=1e-3,
        backbone_learning_rate=2.5e-4,
        keep_last=True,
        seed=seed,
    )


def _new_classes(classes: ClassTable, start: ModelSpec) -> bool:
    return not set(classes.names) <= set(start.classes.names)


def _licence(spec: ModelSpec) -> str:
    licence = spec.training.get("data_licence")
    return f"that of the drive's images, and of {spec.name}: {licence}" if licence else ""


def fit_into_budget(
    config: TrainingConfig, classes: ClassTable, device: str, budget_s: float
) -> TrainingConfig:
    """Reduce ``epochs`` to what a time budget in seconds allows on this machine. Measures a few training steps.

    Raises:
        ValueError: the budget is too short for one epoch; or as ``train``.
    """
    epoch_s = seconds_per_epoch(config, classes, device)
    affordable = int(_TRAINING_SHARE * budget_s / epoch_s)
    if affordable < 1:
        minutes = math.ceil(epoch_s / _TRAINING_SHARE / 60)
        raise ValueError(
            f"minutes {budget_s / 60:g}: one epoch takes {epoch_s:.0f} s on this machine: allow {minutes} or more"
        )
    epochs = min(config.epochs, affordable)
    return replace(config, epochs=epochs, val_every=max(1, epochs // 8))


def average_with_start(tuned: Path, start: Path, folder: Path) -> None:
    """Write the mean of the trained model and of the one it started from.

    With new classes the trained model is written: their outputs fit its features alone.

    Args:
        tuned, start: model folders.
        folder: model folder to write.
    """
    spec, network = load_network(tuned)
    if not _new_classes(spec.classes, load_spec(start)):
        before = copy.deepcopy(network)
        initialize(before, str(start), spec.classes.names)
        for tensor, earlier in zip(network.state_dict().values(), before.state_dict().values()):
            if tensor.is_floating_point():
                tensor.lerp_(earlier, 1 - _TUNED_SHARE)
    save_model(folder, spec, network)
    write_network(folder)


def finish_model(folder: Path, data: Path, replay: Path | None) -> list[str]:
    """Calibrate confidences and the OOD range on the drive, and add int8 scales and a self-test.

    The temperature is fitted to held-out images alone, because confidences on training images are higher. The OOD
    range covers all images of the drive, and those held out of ``replay``.

    Returns:
        What could not be done, as sentences.
    """
    train, val = (find_split(data, split, ignore_warning) for split in ("train", "val"))
    old = find_split(replay, "val", ignore_warning) if replay else []
    calibrate_temperature(folder, val)
    segmenter = Segmenter.load(folder)
    evaluation = evaluate(segmenter, [*train, *val, *old])
    spec = replace(segmenter.spec, familiar=in_distribution_range(evaluation.ood_statistics))
    save_spec(folder, spec)
    every = max(1, -(-len(train) // _INT8_IMAGES))
    images = [resize(read_image(one.image), spec.resolution, cv2.INTER_AREA) for one in train[::every]]
    problems = []
    try:
        keep_scales(folder, calibrate(folder, spec.resolution, images), spec.resolution)
    except (ModuleNotFoundError, EngineError) as error:
        problems.append(f"the model has no int8 scales: {error}")
    try:
        telling = images[:: -(-len(images) // _SELF_TEST_IMAGES)]
        write_self_test(folder, [*telling, *map(vivid, telling)])
    except ModelError as error:
        problems.append(f"the model has no self-test: {error}")
    return problems


def compare(
    before: Segmenter, after: Segmenter, images: Sequence[LabelledImage], title: str
) -> BeforeAndAfter:
    """Compare two models on labelled images with the classes of ``after``.

    A class that only ``before`` knows counts as wrong wherever it is predicted.
    """
    names = after.spec.classes.names
    unknown = len(names)
    known = [names.index(name) if name in names else unknown for name in before.spec.classes.names]
    ids = np.array(known, np.uint8)
    changed: list[ChangedImage] = []
    remaining = iter(images)

    def predict(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        old, new = ids[before(image).mask], after(image).mask
        share = float((old != new).mean())
        changed.append(ChangedImage(next(remaining).name, share, image, old, new, labels))
        changed.sort(key=lambda one: -one.share)
        del changed[CHANGED_IMAGES:]
        return old, new

    first, second = compare_with_labels(predict, images, unknown, title, predicted=unknown + 1)
    return BeforeAndAfter(len(images), scores(first.confusion), scores(second.confusion), changed)
