# SPDX-License-Identifier: Apache-2.0
"""What a training has before its first step: data, network, optimizer and loader, each of them checked."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.model_folder import SPEC_FILE, ModelError, ModelSpec, load_spec
from canet_ros.inference.pictures import in_short
from canet_ros.network import SegmentationNetwork
from canet_ros.training.augmentation import view_shapes
from canet_ros.training.checkpoint import TrainingState
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import (
    IGNORED,
    AugmentedImages,
    EpochSampler,
    LabelledImage,
    count_ids,
    find_labelled_images,
    to_stderr,
    warn_about_missing_classes,
)
from canet_ros.training.initialization import initialize
from canet_ros.training.loss import class_weights
from canet_ros.training.processes import DistributedContext
from canet_ros.training.teacher import Teacher, load_teacher


@dataclass(frozen=True)
class TrainingData:
    """Labelled images to train on, of further folders, and to measure on."""

    main: list[LabelledImage]
    extra: list[list[LabelledImage]]
    val: list[LabelledImage]

    @property
    def all(self) -> list[LabelledImage]:
        return [*self.main, *itertools.chain(*self.extra)]


@dataclass(frozen=True)
class TrainingRun:
    """What an epoch takes. ``trained`` is ``state.network``, or what shares its gradients with other processes."""

    config: TrainingConfig
    spec: ModelSpec
    state: TrainingState
    trained: nn.Module
    frozen: Sequence[nn.Module]
    teacher: Teacher | None
    weights: Tensor
    loader: DataLoader[tuple[Tensor, Tensor]]
    sampler: EpochSampler
    device: str
    identity: dict[str, Any]

    @property
    def steps(self) -> int:
        return self.config.epochs * len(self.loader)


def find_data(config: TrainingConfig, warn: Callable[[str], None]) -> TrainingData:
    splits = [Path(config.data) / split for split in config.splits]
    main = [find_labelled_images(split, without=config.without, warn=warn) for split in splits]
    for prefix in config.without:
        known = itertools.chain(*(find_labelled_images(split, warn=ignore_warning) for split in splits))
        if not any(picture.image.name.startswith(prefix) for picture in known):
            raise ValueError(f"without {prefix}: no training picture's name begins so")
    extra = [find_labelled_images(Path(data.folder), warn=warn) for data in config.extra_data]
    val = find_labelled_images(
        Path(config.data) / "val", warn=ignore_warning if "val" in config.splits else warn
    )
    return TrainingData(list(itertools.chain(*main)), extra, val)


def set_up(
    config: TrainingConfig, classes: ClassTable, data: TrainingData, share: DistributedContext
) -> TrainingRun:
    """Network, optimizer and loader as they are before the first step."""
    spec = _spec(config, classes)
    network = spec.build_network()
    if config.init:
        initialize(network, config.init)
    if config.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    network.to(share.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = network.backbone.stem() if config.freeze_stem else []
    for layer in frozen:
        layer.requires_grad_(False)
    teacher = load_teacher(config, classes, share.device) if config.teacher else None
    counts = _count_pixels(config, data, classes, to_stderr if share.rank == 0 else ignore_warning)
    loader, sampler = _loader(config, data, len(classes), share)
    if not len(loader):
        raise ValueError(
            f"batch_size {config.batch_size}: {len(data.main)} training pictures are fewer than one batch"
        )
    return TrainingRun(
        config=config,
        spec=spec,
        state=TrainingState(
            network,
            copy.deepcopy(network).eval(),
            torch.optim.AdamW(_parameter_groups(network, config)),
            torch.GradScaler(torch.device(share.device).type, enabled=config.precision == "fp16"),
        ),
        trained=nn.parallel.DistributedDataParallel(network) if share.processes > 1 else network,
        frozen=frozen,
        teacher=teacher,
        weights=class_weights(counts, config.class_sharpness).to(share.device),
        loader=loader,
        sampler=sampler,
        device=share.device,
        identity={
            **asdict(config),
            "classes": list(classes.names),
            "training pictures": _fingerprint(data.all),
        },
    )


def _loader(
    config: TrainingConfig, data: TrainingData, classes: int, share: DistributedContext
) -> tuple[DataLoader[tuple[Tensor, Tensor]], EpochSampler]:
    shares = [config.extra_share if extra.share is None else extra.share for extra in config.extra_data]
    drawn = [(len(folder), round(times * len(data.main))) for folder, times in zip(data.extra, shares)]
    batch_size = config.batch_size // share.processes
    sampler = EpochSampler(len(data.main), drawn, batch_size, config.seed, share.rank, share.processes)
    shapes = view_shapes(config.crop, config.max_aspect, math.lcm(16, config.loss_stride))
    loader = DataLoader(
        AugmentedImages(data.all, classes, shapes, config.seed),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=config.workers,
        drop_last=True,
    )
    return loader, sampler


def _parameter_groups(network: SegmentationNetwork, config: TrainingConfig) -> list[dict[str, Any]]:
    """Backbone and the rest at their own rates; no weight decay on biases and batch norm."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    backbone = set(network.backbone.parameters())
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate = config.backbone_learning_rate if parameter in backbone else config.learning_rate
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _count_pixels(
    config: TrainingConfig, data: TrainingData, classes: ClassTable, warn: Callable[[str], None]
) -> NDArray[np.int64]:
    """Pixels of each class to train on, (classes,); all data is read now, not when the first epoch is over.

    Raises:
        ValueError: labels do not fit the class table, or hold one class alone.
    """
    counts = count_ids(data.main, classes, warn, images=True)
    total = counts + sum(count_ids(folder, classes, warn) for folder in data.extra)
    if np.count_nonzero(total[: len(classes)]) == 1:
        found = ", ".join(map(str, np.flatnonzero(total)))
        missing = in_short([name for i, name in enumerate(classes.names) if not total[i]], 20)
        raise ValueError(
            f"data {config.data}: no label has a pixel of {missing}, so there is nothing to tell apart; the labels "
            f"hold the ids {found}: write 0 to {len(classes) - 1}, and {IGNORED} where a pixel has no class"
        )
    of_val = total if "val" in config.splits else count_ids(data.val, classes, warn, images=True)
    warn_about_missing_classes(total, classes, Path(config.data), warn)
    if "val" not in config.splits:
        warn_about_missing_classes(of_val, classes, Path(config.data) / "val", warn)
    return counts[: len(classes)]


def _spec(config: TrainingConfig, classes: ClassTable) -> ModelSpec:
    spec = ModelSpec(
        name=config.name,
        classes=classes,
        architecture=config.architecture,
        backbone=config.backbone,
        fusion=config.fusion,
        head=config.head,
        resolution=config.resolution,
    )
    if not config.init or not (Path(config.init) / SPEC_FILE).is_file():
        return spec
    given = load_spec(Path(config.init))  # its weights know its pixels, and have its shapes
    for name in ("architecture", "backbone", "fusion"):
        if getattr(given, name) != getattr(spec, name):
            raise ModelError(
                f"init {config.init} does not fit: its {name} is {getattr(given, name)}, not {getattr(spec, name)}"
            )
    return replace(spec, mean=given.mean, std=given.std, hidden_channels=given.hidden_channels)


def _fingerprint(pictures: list[LabelledImage]) -> str:
    names = "\n".join(picture.name for picture in pictures)
    return f"{len(pictures)} of names with SHA-256 {hashlib.sha256(names.encode()).hexdigest()[:12]}"


def ignore_warning(text: str) -> None:
    """For what was said already, or is said by another process."""
