# SPDX-License-Identifier: Apache-2.0
"""The training loop, to be read from top to bottom.

A run is its configuration: the same configuration and seed give the same losses, also when the run was killed and
resumed from its last checkpoint. Weights that are kept are an exponential moving average (EMA), the best one on val.
Under ``torchrun`` several processes share every batch (DistributedDataParallel); the first one measures and writes.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from canet_ros.files import require_writable
from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.model_folder import SPEC_FILE, ModelSpec, Resolution, load_spec, save_model
from canet_ros.inference.pictures import in_short
from canet_ros.inference.segmenter import bring_to_size, resize_nearest
from canet_ros.network import SegmentationNetwork
from canet_ros.training.augmentation import view_shapes
from canet_ros.training.checkpoint import TrainingState, resume, save_checkpoint
from canet_ros.training.checks import check_config
from canet_ros.training.dataset import (
    IGNORED,
    AugmentedPictures,
    EpochSampler,
    ExtraData,
    LabelledPicture,
    count_ids,
    find_pictures,
    to_stderr,
    warn_of_missing,
)
from canet_ros.training.evaluate import compare_with_labels
from canet_ros.training.initialization import initialize
from canet_ros.training.loss import class_weights, distillation_loss, segmentation_loss
from canet_ros.training.metrics import Scores, scores
from canet_ros.training.processes import Share, joined, own_share
from canet_ros.training.run_log import RunLog
from canet_ros.training.teacher import Teacher, autocast, load_teacher

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the weights beside classes, pictures and device; kept beside them. Checked when it is made.

    Attributes:
        data: folder with the splits ``train`` and ``val``.
        data_licence: what the data may be used for; so may the weights.
        extra_data: folders of further labelled pictures. Of each an epoch sees its share, ``extra_share`` where it
            has none of its own, times the number of training pictures.
        splits: folders of ``data`` to train on; with ``val`` among them the last epoch counts, not the best on val,
            and no figure on val is kept: it would be of pictures that were learned.
        without: prefixes of picture names (drives) left out of the training.
        init: nothing, a model folder, or an ImageNet file of the backbone.
        freeze_stem: leave the backbone's layers up to stride 4 as ``init`` gave them.
        teacher: a model folder whose logits are learned beside the labels (distillation).
        loss_stride: the loss is taken at the crop's size over ``loss_stride``.
        class_sharpness, dice_share, hard_share: see ``loss``.
        crop: (width, height) of a training sample.
        max_aspect: two batches of three are wider than ``crop``, up to this width per height (``view_shapes``), since
            a network runs in its camera's shape; 0 for ``crop`` alone.
        epochs: length of the schedule.
        sync_batch_norm: several processes on GPUs take batch norm's statistics over the whole batch, not each its own.

    Raises:
        ValueError: a value is out of its range; one line that begins with the field's name.
    """

    data: str
    name: str
    data_licence: str = ""
    architecture: str = "canet"
    backbone: str = "mobilenet_v2"
    fusion: str = "fca"
    head: str = "subpixel"
    extra_data: tuple[ExtraData, ...] = ()
    extra_share: float = 0.3
    splits: tuple[str, ...] = ("train",)
    without: tuple[str, ...] = ()
    init: str = ""
    freeze_stem: bool = False
    teacher: str = ""
    teacher_share: float = 1.0
    resolution: Resolution = (480, 360)
    crop: Resolution = (480, 352)
    max_aspect: float = 3.0
    epochs: int = 30
    batch_size: int = 8
    learning_rate: float = 2e-3
    backbone_learning_rate: float = 4e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    poly_power: float = 0.9
    class_sharpness: float = 1.2
    dice_share: float = 1.0
    hard_share: float = 1.0
    loss_stride: int = 2
    ema_decay: float = 0.998
    precision: str = "bf16"
    val_every: int = 2
    seed: int = 0
    workers: int = 1
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        check_config(self)


def train(config: TrainingConfig, classes: ClassTable, run_folder: Path, device: str = "cpu") -> Scores:
    """Train until the last epoch, from the checkpoint in ``run_folder`` where there is one.

    Writes ``checkpoint.pt``, ``model/`` (the best EMA weights on val) and what ``RunLog`` writes.

    Returns:
        The scores of the best epoch on val.

    Raises:
        ValueError: data, configuration or device do not fit, or the checkpoint is of another run.
        OSError: something cannot be written.
        RuntimeError: another process of this training ended.
    """
    share = own_share(device)
    if config.batch_size % share.processes:
        raise ValueError(
            f"batch_size {config.batch_size}: {share.processes} processes cannot share it, it must be a multiple"
        )
    if config.sync_batch_norm and share.device == "cpu":
        raise ValueError("sync_batch_norm True: PyTorch has it on GPUs alone")
    with joined(share):
        return _train(config, classes, run_folder, share)


def _train(config: TrainingConfig, classes: ClassTable, run_folder: Path, share: Share) -> Scores:
    device, rank, processes = share.device, share.rank, share.processes
    torch.manual_seed(config.seed)
    warn = to_stderr if rank == 0 else _say_nothing
    pictures = [
        picture
        for split in config.splits
        for picture in find_pictures(Path(config.data) / split, without=config.without, warn=warn)
    ]
    for prefix in config.without:
        known = [find_pictures(Path(config.data) / split, warn=_say_nothing) for split in config.splits]
        if not any(picture.image.name.startswith(prefix) for picture in itertools.chain(*known)):
            raise ValueError(f"without {prefix}: no training picture's name begins so")
    extra = [find_pictures(Path(data.folder), warn=warn) for data in config.extra_data]
    all_pictures = [*pictures, *itertools.chain(*extra)]
    val = find_pictures(Path(config.data) / "val", warn=_say_nothing if "val" in config.splits else warn)
    require_writable(run_folder / CHECKPOINT_FILE)

    spec = _spec(config, classes)
    network = spec.build_network()
    if config.init:
        initialize(network, config.init)
    if config.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = network.backbone.stem() if config.freeze_stem else []
    for layer in frozen:
        layer.requires_grad_(False)
    ema = copy.deepcopy(network).eval()
    teacher = load_teacher(config, classes, device) if config.teacher else None
    optimizer = torch.optim.AdamW(_parameter_groups(network, config))
    scaler = torch.GradScaler(torch.device(device).type, enabled=config.precision == "fp16")
    counts = _count_pixels(config, pictures, extra, val, classes, warn)
    weights = class_weights(counts, config.class_sharpness).to(device)

    extra_shares = [config.extra_share if data.share is None else data.share for data in config.extra_data]
    drawn = [(len(folder), round(times * len(pictures))) for folder, times in zip(extra, extra_shares)]
    batch_size = config.batch_size // processes
    sampler = EpochSampler(len(pictures), drawn, batch_size, config.seed, rank, processes)
    shapes = view_shapes(config.crop, config.max_aspect, math.lcm(16, config.loss_stride))
    loader = DataLoader(
        AugmentedPictures(all_pictures, len(classes), shapes, config.seed),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=config.workers,
        drop_last=True,
    )
    steps = config.epochs * len(loader)
    if steps == 0:
        raise ValueError(
            f"batch_size {config.batch_size}: {len(pictures)} training pictures are fewer than one batch"
        )
    state = TrainingState(network, ema, optimizer, scaler)
    identity = {
        **asdict(config),
        "classes": list(classes.names),
        "training pictures": _fingerprint(all_pictures),
    }
    first_epoch, best = resume(run_folder / CHECKPOINT_FILE, identity, state)
    log = RunLog(run_folder, first_epoch) if rank == 0 else None
    trained = nn.parallel.DistributedDataParallel(network) if processes > 1 else network
    bar = tqdm(total=steps, initial=first_epoch * len(loader), unit="step", disable=rank > 0 or None)

    for epoch in range(first_epoch, config.epochs):
        started = time.perf_counter()
        sampler.epoch = epoch
        losses = []
        for batch, (image, label) in enumerate(_batches(loader)):
            network.train()
            for layer in frozen:
                layer.eval()
            step = epoch * len(loader) + batch
            rate = _set_learning_rate(optimizer, step, steps, config)
            loss = _loss(trained, spec, teacher, image.to(device), label.to(device), weights, config, step)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            _update_ema(ema, network, config.ema_decay, step)
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise ValueError(
                    f"learning_rate {config.learning_rate}: the loss became {losses[-1]} at step {step}"
                )
            bar.set_description(f"epoch {epoch + 1}/{config.epochs}", refresh=False)
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", lr=f"{rate:.1e}", refresh=False)
            bar.update()
        if log is None:
            continue
        entry: dict[str, float] = {
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            "learning_rate": rate,
            "seconds": time.perf_counter() - started,
        }
        if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
            found = evaluate_network(ema, spec, val, config.precision, device)
            entry |= {"val_miou": found.miou, "val_pixel_accuracy": found.pixel_accuracy}
            if best is None or found.miou > best.miou or "val" in config.splits:
                best = found
                save_model(run_folder / "model", _trained(spec, config, found, epoch + 1), ema)
        log.add(entry)
        tqdm.write(json.dumps(entry))
        save_checkpoint(run_folder / CHECKPOINT_FILE, identity, state, epoch + 1, best)
    bar.close()
    if processes > 1:
        shared = [best]
        dist.broadcast_object_list(shared, src=0)
        best = shared[0]
    if best is None:
        raise ValueError(f"nothing to train: the run in {run_folder} is already at its last epoch")
    return best


def evaluate_network(
    network: nn.Module, spec: ModelSpec, pictures: list[LabelledPicture], precision: str, device: str
) -> Scores:
    """Scores of a network in eval mode: pictures brought to the model's resolution, masks back to their size."""

    def masks_of(image: NDArray[np.uint8], _: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        with torch.inference_mode(), autocast(precision, device):
            logits = network(network_input(spec, image, device))
        mask = logits[0].float().argmax(dim=0).to(torch.uint8).cpu().numpy()
        return [resize_nearest(mask, (image.shape[1], image.shape[0]))]

    (found,) = compare_with_labels(masks_of, pictures, len(spec.classes), "val", leave=False)
    return scores(found.confusion)


def _loss(
    network: nn.Module,
    spec: ModelSpec,
    teacher: Teacher | None,
    image: Tensor,
    label: Tensor,
    weights: Tensor,
    config: TrainingConfig,
    step: int,
) -> Tensor:
    # Logits lie in the middle of squares of loss_stride pixels; in turn, each pixel of the square says what is right.
    stride = config.loss_stride
    row, column = divmod(step % stride**2, stride)
    label = label[:, row::stride, column::stride]
    with autocast(config.precision, image.device.type):
        logits = network(spec.normalize(image).contiguous(memory_format=torch.channels_last), stride)
    loss = segmentation_loss(logits, label, weights, config.dice_share, config.hard_share)
    if teacher is None:
        return loss
    return loss + config.teacher_share * distillation_loss(logits, teacher(image))


def network_input(spec: ModelSpec, image: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """A picture (H, W, 3) BGR uint8 as a model's network wants it, (1, 3, h, w) float32."""
    width, height = spec.resolution
    resized = np.empty((height, width, 3), np.uint8)
    bring_to_size(image, resized)
    rgb = torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1].transpose(2, 0, 1)))[None]
    return spec.normalize(rgb.to(device)).contiguous(memory_format=torch.channels_last)


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


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, steps: int, config: TrainingConfig
) -> float:
    """Linear warm-up, then polynomial decay to zero; returns the highest rate of all groups."""
    factor = min(1.0, (step + 1) / config.warmup_steps) * (1 - step / steps) ** config.poly_power
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


@torch.no_grad()
def _update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(ema.state_dict().values(), network.state_dict().values()):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _batches(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        yield from loader
    except ValueError as error:  # of another process, with its traceback as the message
        raise ValueError(
            str(error).strip().rpartition("\n")[2].partition("Error: ")[2] or str(error)
        ) from error


def _fingerprint(pictures: list[LabelledPicture]) -> str:
    names = "\n".join(picture.name for picture in pictures)
    return f"{len(pictures)} of names with SHA-256 {hashlib.sha256(names.encode()).hexdigest()[:12]}"


def _say_nothing(text: str) -> None:
    """For what was said already, or is said by another process."""


def _count_pixels(
    config: TrainingConfig,
    pictures: list[LabelledPicture],
    extra: list[list[LabelledPicture]],
    val: list[LabelledPicture],
    classes: ClassTable,
    warn: Callable[[str], None],
) -> NDArray[np.int64]:
    """Pixels of each class to train on, (classes,); all data is read now, not when the first epoch is over.

    Raises:
        ValueError: labels do not fit the class table, or hold one class alone.
    """
    counts = count_ids(pictures, classes, warn, images=True)
    total = counts + sum(count_ids(folder, classes, warn) for folder in extra)
    if np.count_nonzero(total[: len(classes)]) == 1:
        found = ", ".join(map(str, np.flatnonzero(total)))
        missing = in_short([name for i, name in enumerate(classes.names) if not total[i]], 20)
        raise ValueError(
            f"data {config.data}: no label has a pixel of {missing}, so there is nothing to tell apart; the labels "
            f"hold the ids {found}: write 0 to {len(classes) - 1}, and {IGNORED} where a pixel has no class"
        )
    of_val = total if "val" in config.splits else count_ids(val, classes, warn, images=True)
    warn_of_missing(total, classes, Path(config.data), warn)
    if "val" not in config.splits:
        warn_of_missing(of_val, classes, Path(config.data) / "val", warn)
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
    if not (Path(config.init) / SPEC_FILE).is_file():
        return spec
    given = load_spec(Path(config.init))  # its weights know its pixels, and have its shapes
    channels = given.hidden_channels if given.backbone == spec.backbone else {}
    return replace(spec, mean=given.mean, std=given.std, hidden_channels=channels)


def _trained(spec: ModelSpec, config: TrainingConfig, found: Scores, epoch: int) -> ModelSpec:
    metrics = {} if "val" in config.splits else _metrics(spec.classes, found)
    return replace(spec, training={"epoch": epoch, **_portable(config)}, metrics=metrics)


def _metrics(classes: ClassTable, found: Scores) -> dict[str, Any]:
    return {
        "val_miou": round(found.miou, 4),
        "val_pixel_accuracy": round(found.pixel_accuracy, 4),
        "val_iou": {name: round(float(iou), 4) for name, iou in zip(classes.names, found.iou)},
    }


def _portable(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as plain YAML types, with the names of folders and files but not where they lay."""
    values: dict[str, Any] = asdict(config)
    for key in ("name", "architecture", "backbone", "fusion", "head", "resolution"):
        del values[key]
    values |= {key: Path(values[key]).name for key in ("data", "init", "teacher")}
    values["extra_data"] = [str(replace(data, folder=Path(data.folder).name)) for data in config.extra_data]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
