# SPDX-License-Identifier: Apache-2.0
"""The training loop, to be read from top to bottom.

A run is its configuration: the same configuration and seed give the same losses, also when the run was killed and
resumed from its last checkpoint. Weights that are kept are an exponential moving average (EMA), the best one on val.
Under ``torchrun`` several processes share every batch (DistributedDataParallel); the first one measures and writes.
"""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from canet_ros.inference.class_table import ClassTable
from canet_ros.inference.model_folder import ModelSpec, Resolution, save_model
from canet_ros.network import CANet
from canet_ros.training.dataset import (
    IGNORED,
    AugmentedPictures,
    EpochSampler,
    LabelledPicture,
    find_pictures,
)
from canet_ros.training.initialization import initialize
from canet_ros.training.loss import class_weights, segmentation_loss
from canet_ros.training.metrics import Scores, confusion_matrix, scores

CHECKPOINT_FILE = "checkpoint.pt"
HISTORY_FILE = "history.jsonl"


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the weights; kept beside them.

    Attributes:
        data: folder with the splits ``train`` and ``val``.
        data_licence: what the data may be used for; so may the weights.
        extra_data: folders of further labelled pictures, of which each epoch sees ``extra_share`` times the
            number of training pictures.
        without: prefixes of picture names (drives) left out of the training.
        init: nothing, a model folder, or an ImageNet file of the backbone.
        crop: (width, height) of a training sample.
        epochs: length of the schedule.
    """

    data: str
    name: str
    data_licence: str = ""
    architecture: str = "canet"
    backbone: str = "mobilenet_v2"
    fusion: str = "fca"
    extra_data: tuple[str, ...] = ()
    extra_share: float = 0.3
    without: tuple[str, ...] = ()
    init: str = ""
    resolution: Resolution = (480, 360)
    crop: Resolution = (480, 352)
    epochs: int = 30
    batch_size: int = 8
    learning_rate: float = 2e-3
    backbone_learning_rate: float = 4e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    poly_power: float = 0.9
    dice_share: float = 0.5
    ema_decay: float = 0.998
    precision: str = "bf16"
    val_every: int = 2
    seed: int = 0
    workers: int = 1


def train(config: TrainingConfig, classes: ClassTable, run_folder: Path, device: str = "cpu") -> Scores:
    """Train until the last epoch, from the checkpoint in ``run_folder`` where there is one.

    Writes ``checkpoint.pt``, ``history.jsonl`` (a line per epoch) and ``model/`` (the best EMA weights on val).

    Returns:
        The scores of the best epoch on val.

    Raises:
        ValueError: data or configuration do not fit, or the checkpoint is of another configuration.
    """
    rank, processes = _join_processes(device)
    torch.manual_seed(config.seed)
    pictures = find_pictures(Path(config.data) / "train", without=config.without)
    extra = [picture for folder in config.extra_data for picture in find_pictures(Path(folder))]
    val = find_pictures(Path(config.data) / "val")

    network = CANet(len(classes), config.backbone, config.fusion, config.architecture)
    if config.init:
        initialize(network, config.init)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(_parameter_groups(network, config))
    weights = class_weights(_count_pixels(pictures, len(classes))).to(device)

    extra_count = round(config.extra_share * len(pictures))
    sampler = EpochSampler(len(pictures), len(extra), extra_count, config.seed, rank, processes)
    loader = DataLoader(
        AugmentedPictures([*pictures, *extra], len(classes), config.crop, config.seed),
        batch_size=config.batch_size // processes,
        sampler=sampler,
        num_workers=config.workers,
        drop_last=True,
    )
    steps = config.epochs * len(loader)
    if steps == 0:
        raise ValueError(f"{len(sampler)} training pictures are fewer than one batch of {config.batch_size}")
    run_folder.mkdir(parents=True, exist_ok=True)
    first_epoch, best = _resume(run_folder, config, network, ema, optimizer)
    if rank == 0:
        _keep_lines(run_folder / HISTORY_FILE, first_epoch)
    trained = nn.parallel.DistributedDataParallel(network) if processes > 1 else network

    for epoch in range(first_epoch, config.epochs):
        started = time.perf_counter()
        sampler.epoch = epoch
        losses = []
        bar = tqdm(loader, desc=f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=rank > 0)
        for batch, (image, label) in enumerate(bar):
            step = epoch * len(loader) + batch
            rate = _set_learning_rate(optimizer, step, steps, config)
            loss = _step(trained, optimizer, image.to(device), label.to(device), weights, config)
            _update_ema(ema, network, config.ema_decay, step)
            losses.append(loss)
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", lr=f"{rate:.1e}")
        if rank > 0:
            continue
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            "seconds": time.perf_counter() - started,
        }
        if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
            found = evaluate_network(ema, val, len(classes), config, device)
            entry |= {"val_miou": found.miou, "val_pixel_accuracy": found.pixel_accuracy}
            if best is None or found.miou > best.miou:
                best = found
                save_model(run_folder / "model", _spec(config, classes, found, epoch + 1), ema)
        with open(run_folder / HISTORY_FILE, "a", encoding="utf-8") as history:
            history.write(json.dumps(entry) + "\n")
        tqdm.write(json.dumps(entry))
        _save_checkpoint(run_folder, config, network, ema, optimizer, epoch + 1, best)
    if processes > 1:
        shared = [best]
        dist.broadcast_object_list(shared, src=0)
        best = shared[0]
        dist.destroy_process_group()
    if best is None:
        raise ValueError(f"nothing to train: the run in {run_folder} is already at its last epoch")
    return best


def _join_processes(device: str) -> tuple[int, int]:
    """Rank and number of the processes that ``torchrun`` started; (0, 1) without it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("gloo" if device == "cpu" else "nccl")
    return dist.get_rank(), processes


def evaluate_network(
    network: nn.Module, pictures: list[LabelledPicture], classes: int, config: TrainingConfig, device: str
) -> Scores:
    """Scores of a network in eval mode on whole pictures at their own size."""
    confusion = np.zeros((classes, classes), np.int64)
    with torch.inference_mode():
        for picture in tqdm(pictures, desc="val", leave=False):
            image, label = picture.read(classes)
            rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))[None].to(
                device
            )
            with _autocast(config.precision, device):
                logits = network(_normalize(rgb))
            prediction = logits[0].float().argmax(dim=0).to(torch.uint8).cpu().numpy()
            confusion += confusion_matrix(label, prediction, classes)
    return scores(confusion)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    label: Tensor,
    weights: Tensor,
    config: TrainingConfig,
) -> float:
    network.train()
    with _autocast(config.precision, image.device.type):
        logits = network(_normalize(image))
    loss = segmentation_loss(logits, label, weights, config.dice_share)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def _normalize(rgb: Tensor) -> Tensor:
    mean = rgb.new_tensor(ModelSpec.mean, dtype=torch.float32).view(1, 3, 1, 1)
    std = rgb.new_tensor(ModelSpec.std, dtype=torch.float32).view(1, 3, 1, 1)
    return ((rgb.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _autocast(precision: str, device: str) -> torch.autocast:
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision not in types:
        raise ValueError(f"training precision {precision!r}: choose one of {', '.join(types)}")
    return torch.autocast(torch.device(device).type, types[precision], enabled=precision != "fp32")


def _parameter_groups(network: CANet, config: TrainingConfig) -> list[dict[str, Any]]:
    """Backbone and the rest at their own rates; no weight decay on biases and batch norm."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rate = config.backbone_learning_rate if ".backbone." in name else config.learning_rate
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


def _count_pixels(pictures: list[LabelledPicture], classes: int) -> NDArray[np.int64]:
    counts = np.zeros(IGNORED + 1, np.int64)
    for picture in pictures:
        counts += np.bincount(picture.read(classes)[1].ravel(), minlength=IGNORED + 1)
    return counts[:classes]


def _spec(config: TrainingConfig, classes: ClassTable, found: Scores, epoch: int) -> ModelSpec:
    return ModelSpec(
        name=config.name,
        classes=classes,
        architecture=config.architecture,
        backbone=config.backbone,
        fusion=config.fusion,
        resolution=config.resolution,
        training={"epoch": epoch, **_portable(config)},
        metrics={
            "val_miou": round(found.miou, 4),
            "val_pixel_accuracy": round(found.pixel_accuracy, 4),
            "val_iou": {name: round(float(iou), 4) for name, iou in zip(classes.names, found.iou)},
        },
    )


def _portable(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as plain YAML types, with the names of folders and files but not where they lay."""
    values: dict[str, Any] = asdict(config)
    del values["name"], values["architecture"], values["backbone"], values["fusion"], values["resolution"]
    values |= {"data": Path(config.data).name, "init": Path(config.init).name}
    values |= {"extra_data": [Path(folder).name for folder in config.extra_data]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _resume(
    run_folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> tuple[int, Scores | None]:
    path = run_folder / CHECKPOINT_FILE
    if not path.is_file():
        return 0, None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != json.dumps(asdict(config)):
        raise ValueError(
            f"{path} is of another configuration: use another folder, or delete it to start anew"
        )
    network.load_state_dict(state["network"])
    ema.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    best = state["best"]
    if best is None:
        return int(state["epoch"]), None
    return int(state["epoch"]), Scores(best["miou"], best["pixel_accuracy"], np.array(best["iou"]))


def _keep_lines(path: Path, count: int) -> None:
    """Forget what a killed run wrote after its last checkpoint."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:count]), encoding="utf-8")


def _save_checkpoint(
    run_folder: Path,
    config: TrainingConfig,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    best: Scores | None,
) -> None:
    state = {
        "config": json.dumps(asdict(config)),
        "network": network.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "best": None
        if best is None
        else {"miou": best.miou, "pixel_accuracy": best.pixel_accuracy, "iou": best.iou.tolist()},
    }
    partial = run_folder / f"{CHECKPOINT_FILE}.partial"
    torch.save(state, partial)
    partial.replace(run_folder / CHECKPOINT_FILE)
