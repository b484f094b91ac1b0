# SPDX-License-Identifier: Apache-2.0
"""Set-up of a training run: data, network, optimizer and loader, all checked before the first step."""

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

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import SPEC_FILE, ModelError, ModelSpec, load_spec
from canet_ros.network import SegmentationNetwork
from canet_ros.pipeline.image_files import in_short
from canet_ros.training.augmentation import view_shapes
from canet_ros.training.checkpoint import TrainingState
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import (
    IGNORED,
    LabelledImage,
    count_ids,
    find_labelled_images,
    find_split,
    ignore_warning,
    of_drives,
    to_stderr,
    warn_about_missing_classes,
)
from canet_ros.training.initialization import initialize
from canet_ros.training.loss import class_weights
from canet_ros.training.processes import DistributedContext
from canet_ros.training.samples import AugmentedImages, EpochSampler
from canet_ros.training.teacher import Teacher, load_teacher


@dataclass(frozen=True)
class TrainingData:
    """Labelled images of the training splits, of further folders, and of the validation split."""

    main: list[LabelledImage]
    extra: list[list[LabelledImage]]
    val: list[LabelledImage]

    @property
    def all(self) -> list[LabelledImage]:
        return [*self.main, *itertools.chain(*self.extra)]


@dataclass(frozen=True)
class TrainingRun:
    """State and settings of a run. ``trained`` is ``state.network`` or its DistributedDataParallel wrapper."""

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
    """Find all labelled images of a configuration; raises as ``find_labelled_images``."""
    data = Path(config.data)
    main = list(itertools.chain(*(find_split(data, split, warn) for split in config.splits)))
    of_drives(main, config.without)  # a prefix that no image has is refused
    kept = [image for image in main if not image.name.startswith(config.without)]
    if not kept:
        raise ValueError(f"without {' '.join(config.without)}: leaves no training image")
    extra = [find_labelled_images(Path(data.folder), warn) for data in config.extra_data]
    val = find_split(data, "val", ignore_warning if "val" in config.splits else warn)
    return TrainingData(kept, extra, val)


def set_up(
    config: TrainingConfig,
    classes: ClassTable,
    data: TrainingData,
    context: DistributedContext,
    warn: Callable[[str], None] = to_stderr,
) -> TrainingRun:
    """Network, optimizer and loader as they are before the first step; ``warn`` gets warnings about the labels."""
    spec = _spec(config, classes)
    network = spec.build_network()
    if config.init:
        initialize(network, config.init, classes.names)
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = network.backbone.stem() if config.freeze_stem else []
    for layer in frozen:
        layer.requires_grad_(False)
    teacher = load_teacher(config, classes, context.device) if config.teacher else None
    counts = _count_pixels(config, data, classes, warn if context.rank == 0 else ignore_warning)
    loader, sampler = _loader(config, data, len(classes), context)
    if not len(loader):
        raise ValueError(
            f"batch_size {config.batch_size}: {len(data.main)} training images are fewer than one batch"
        )
    config = replace(config, epochs=config.epochs or default_epochs(len(loader)))
    return TrainingRun(
        config=config,
        spec=spec,
        state=TrainingState(
            network,
            copy.deepcopy(network).eval(),
            torch.optim.AdamW(_parameter_groups(network, config)),
            torch.GradScaler(torch.device(context.device).type, enabled=config.precision == "fp16"),
        ),
        trained=nn.parallel.DistributedDataParallel(network) if context.world_size > 1 else network,
        frozen=frozen,
        teacher=teacher,
        weights=class_weights(counts, config.class_sharpness).to(context.device),
        loader=loader,
        sampler=sampler,
        device=context.device,
        identity={
            **asdict(config),
            "classes": list(classes.names),
            "training images": _fingerprint(data.all),
        },
    )


def default_epochs(steps_per_epoch: int, least_steps: int = 600) -> int:
    """30 epochs, or as many as make the least steps of a small dataset, or as stay within 60,000 of a large one."""
    steps = min(max(30 * steps_per_epoch, least_steps), 60_000)
    return max(1, round(steps / steps_per_epoch))


def _loader(
    config: TrainingConfig, data: TrainingData, classes: int, context: DistributedContext
) -> tuple[DataLoader[tuple[Tensor, Tensor]], EpochSampler]:
    shares = (extra.share for extra in config.extra_data)
    extra = [(len(folder), round(share * len(data.main))) for folder, share in zip(data.extra, shares)]
    batch_size = config.batch_size // context.world_size
    sampler = EpochSampler(len(data.main), extra, batch_size, config.seed, context.rank, context.world_size)
    shapes = view_shapes(config.crop, config.max_aspect, math.lcm(16, config.loss_stride))
    loader = DataLoader(
        AugmentedImages(data.all, classes, shapes, config.seed),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        drop_last=True,
    )
    return loader, sampler


def _parameter_groups(network: SegmentationNetwork, config: TrainingConfig) -> list[dict[str, Any]]:
    """Separate learning rates for the backbone and the rest; no weight decay on biases and batch norm."""
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
    """Training pixels of each class, (classes,). Reads and checks all labels, and the images of --data.

    Raises:
        ValueError: labels do not fit the class table, or contain a single class.
    """
    counts = count_ids(data.main, classes, warn, check_images=True)
    total = counts + sum(count_ids(folder, classes, warn) for folder in data.extra)
    if np.count_nonzero(total[: len(classes)]) == 1:
        present = ", ".join(map(str, np.flatnonzero(total)))
        missing = in_short([name for i, name in enumerate(classes.names) if not total[i]], 20)
        raise ValueError(
            f"data {config.data}: no label has a pixel of {missing}, which leaves a single class; the labels contain "
            f"the ids {present}: write 0 to {len(classes) - 1}, and {IGNORED} for pixels without a class"
        )
    warn_about_missing_classes(total, classes, Path(config.data), warn)
    if "val" not in config.splits:
        val_counts = count_ids(data.val, classes, warn, check_images=True)
        warn_about_missing_classes(val_counts, classes, Path(config.data) / "val", warn)
    return counts[: len(classes)]


def _spec(config: TrainingConfig, classes: ClassTable) -> ModelSpec:
    parts = {name: getattr(config, name) for name in ("architecture", "backbone", "fusion")}
    spec = ModelSpec(config.name, classes, head=config.head, resolution=config.resolution, **parts)
    if not config.init or not (Path(config.init) / SPEC_FILE).is_file():
        return spec
    given = load_spec(Path(config.init))  # the weights need its normalisation and layer widths
    for name, value in parts.items():
        if getattr(given, name) != value:
            raise ModelError(
                f"init {config.init} does not fit: its {name} is {getattr(given, name)}, not {value}"
            )
    return replace(spec, mean=given.mean, std=given.std, hidden_channels=given.hidden_channels)


def _fingerprint(images: list[LabelledImage]) -> str:
    names = "\n".join(image.name for image in images)
    return f"{len(images)} of names with SHA-256 {hashlib.sha256(names.encode()).hexdigest()[:12]}"
