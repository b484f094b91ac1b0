# SPDX-License-Identifier: Apache-2.0
"""The training loop.

The same configuration and seed give the same losses, even if the run was killed and resumed from its last checkpoint.
The stored weights are an exponential moving average (EMA), from the best epoch on val. Under ``torchrun``, several
processes split every batch (DistributedDataParallel); the first one evaluates and writes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from canet_ros.files import require_writable
from canet_ros.hints import canet_command
from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import SPEC_FILE, ModelSpec, save_model
from canet_ros.model.network_export import write_network
from canet_ros.network import SegmentationNetwork
from canet_ros.opencv import bring_to_size
from canet_ros.pipeline.segmentation import resize_nearest
from canet_ros.training.checkpoint import resume, save_checkpoint
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import LabelledImage, ignore_warning, to_stderr
from canet_ros.training.evaluate import compare_with_labels
from canet_ros.training.loss import distillation_loss, segmentation_loss
from canet_ros.training.metrics import Scores, scores
from canet_ros.training.processes import DistributedContext, distributed_context, process_group
from canet_ros.training.run_log import read_history, write_history
from canet_ros.training.setup import TrainingRun, find_data, set_up
from canet_ros.training.teacher import autocast

CHECKPOINT_FILE = "checkpoint.pt"


def train(config: TrainingConfig, classes: ClassTable, run_folder: Path, device: str = "cpu") -> Scores:
    """Train until the last epoch, resuming from a checkpoint in ``run_folder``.

    Writes ``checkpoint.pt``, ``model/`` (the best EMA weights on val) and the files of ``write_history``.

    Returns:
        The scores of the best epoch on val.

    Raises:
        ValueError: data, configuration or device are invalid, or the checkpoint is of another run.
        OSError: a file cannot be written.
        RuntimeError: another process of this training ended.
    """
    context = distributed_context(device)
    if config.batch_size % context.world_size:
        raise ValueError(
            f"batch_size {config.batch_size}: must be a multiple of the number of processes, {context.world_size}"
        )
    with process_group(context):
        return _train(config, classes, run_folder, context)


def _train(
    config: TrainingConfig, classes: ClassTable, run_folder: Path, context: DistributedContext
) -> Scores:
    torch.manual_seed(config.seed)
    first = context.rank == 0
    data = find_data(config, to_stderr if first else ignore_warning)
    require_writable(run_folder / CHECKPOINT_FILE)
    run = set_up(config, classes, data, context)
    config = run.config
    first_epoch, best = resume(run_folder / CHECKPOINT_FILE, run.identity, run.state)
    history = read_history(run_folder)[:first_epoch]  # later entries are of a killed run
    with tqdm(
        total=run.steps, initial=first_epoch * len(run.loader), unit="step", disable=None if first else True
    ) as bar:
        for epoch in range(first_epoch, config.epochs):
            entry = train_one_epoch(run, epoch, bar)
            if not first:
                continue
            if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
                result = evaluate_network(run.state.ema, run.spec, data.val, config.precision, context.device)
                entry |= {"val_miou": result.miou, "val_pixel_accuracy": result.pixel_accuracy}
                if best is None or result.miou > best.miou or config.keep_last or "val" in config.splits:
                    best = result
                    save_model(
                        run_folder / "model",
                        _trained_spec(run.spec, config, result, epoch + 1),
                        cast(SegmentationNetwork, run.state.ema),
                    )
            history.append(entry)
            write_history(run_folder, history)
            tqdm.write(_summary(entry, config.epochs))
            save_checkpoint(run_folder / CHECKPOINT_FILE, run.identity, run.state, epoch + 1, best)
    if first and best is not None and (run_folder / "model" / SPEC_FILE).is_file():
        try:
            write_network(run_folder / "model")  # once: between epochs it would take as long as some of them
        except ModuleNotFoundError as error:  # the training is done, and the command can be run later
            tqdm.write(f"{error}; then {canet_command(f'export --model {run_folder}/model --network')}")
    if context.world_size > 1:
        broadcast = [best]
        dist.broadcast_object_list(broadcast, src=0)
        best = broadcast[0]
    if best is None:
        raise ValueError(f"the run in {run_folder} is already at its last epoch")
    return best


def train_one_epoch(run: TrainingRun, epoch: int, bar: tqdm[Any]) -> dict[str, float]:
    """Train one epoch; updates ``run.state``.

    Returns:
        The entry of the log: epoch, mean loss, last learning rate and duration in seconds.

    Raises:
        ValueError: the loss is not finite.
    """
    started = time.perf_counter()
    config, state = run.config, run.state
    run.sampler.epoch = epoch
    losses = []
    for batch, (image, label) in enumerate(_batches(run.loader)):
        step = epoch * len(run.loader) + batch
        rate = _set_learning_rate(state.optimizer, step, run.steps, config)
        losses.append(_train_step(run, image.to(run.device), label.to(run.device), step))
        bar.set_description(f"epoch {epoch + 1}/{config.epochs}", refresh=False)
        bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}", lr=f"{rate:.1e}", refresh=False)
        bar.update()
    return {
        "epoch": epoch + 1,
        "loss": float(np.mean(losses)),
        "learning_rate": rate,
        "seconds": time.perf_counter() - started,
    }


def _train_step(run: TrainingRun, image: Tensor, label: Tensor, step: int) -> float:
    """Update the weights by one batch; returns its loss."""
    state = run.state
    state.network.train()
    for layer in run.frozen:
        layer.eval()
    loss = _loss(run, image, label, step)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.unscale_(state.optimizer)
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    _update_ema(state.ema, state.network, run.config.ema_decay, step)
    value = float(loss.detach())
    if not np.isfinite(value):
        raise ValueError(f"learning_rate {run.config.learning_rate}: the loss became {value} at step {step}")
    return value


def seconds_per_epoch(config: TrainingConfig, classes: ClassTable, device: str, steps: int = 4) -> float:
    """Duration of an epoch on this machine, by a few steps of a run that is thrown away. Raises as ``train``."""
    data = find_data(config, ignore_warning)
    run = set_up(config, classes, data, distributed_context(device), ignore_warning)
    ends_s = [time.perf_counter()]
    for step, (image, label) in zip(range(steps + 1), _batches(run.loader)):
        _train_step(run, image.to(run.device), label.to(run.device), step)
        ends_s.append(time.perf_counter())
    first = min(1, len(ends_s) - 2)  # workers start and memory is allocated during the first step
    return len(run.loader) * (ends_s[-1] - ends_s[first]) / (len(ends_s) - 1 - first)


def _summary(entry: dict[str, float], epochs: int) -> str:
    miou = f", mIoU on val {entry['val_miou']:.3f}" if "val_miou" in entry else ""
    return f"epoch {entry['epoch']}/{epochs}: loss {entry['loss']:.3f}{miou}, {entry['seconds']:.0f} s"


def evaluate_network(
    network: nn.Module, spec: ModelSpec, images: list[LabelledImage], precision: str, device: str
) -> Scores:
    """Scores of a network in eval mode, at the model's resolution, with masks resized to their image."""

    def predict(image: NDArray[np.uint8], _: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        with torch.inference_mode(), autocast(precision, device):
            logits = network(network_input(spec, image, device))
        mask = logits[0].float().argmax(dim=0).to(torch.uint8).cpu().numpy()
        return [resize_nearest(mask, (image.shape[1], image.shape[0]))]

    (comparison,) = compare_with_labels(predict, images, len(spec.classes), "val", leave=False)
    return scores(comparison.confusion)


def _loss(run: TrainingRun, image: Tensor, label: Tensor, step: int) -> Tensor:
    # A logit covers loss_stride x loss_stride pixels; its target is a different one of them in each step.
    config = run.config
    stride = config.loss_stride
    row, column = divmod(step % stride**2, stride)
    label = label[:, row::stride, column::stride]
    with autocast(config.precision, image.device.type):
        logits = run.trained(run.spec.normalize(image).contiguous(memory_format=torch.channels_last), stride)
    loss = segmentation_loss(logits, label, run.weights, config.dice_share)
    if run.teacher is None:
        return loss
    return loss + config.teacher_share * distillation_loss(logits, run.teacher(image))


def network_input(spec: ModelSpec, image: NDArray[np.uint8], device: str = "cpu") -> Tensor:
    """The network input (1, 3, h, w) float32 of an image (H, W, 3) BGR uint8."""
    width, height = spec.resolution
    resized = np.empty((height, width, 3), np.uint8)
    bring_to_size(image, resized)
    rgb = torch.from_numpy(np.ascontiguousarray(resized[:, :, ::-1].transpose(2, 0, 1)))[None]
    return spec.normalize(rgb.to(device)).contiguous(memory_format=torch.channels_last)


def _set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, steps: int, config: TrainingConfig
) -> float:
    """Linear warm-up times polynomial decay to zero; returns the highest rate of all groups."""
    warmup = max(1, min(config.warmup_steps, steps // 10))
    factor = min(1.0, (step + 1) / warmup) * (1 - step / steps) ** config.poly_power
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


@torch.no_grad()
def _update_ema(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    for average, current in zip(ema.state_dict().values(), network.state_dict().values()):
        if average.is_floating_point():
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)


def _batches(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        yield from loader
    except ValueError as error:  # of a worker process, with its traceback as the message
        raise ValueError(
            str(error).strip().rpartition("\n")[2].partition("Error: ")[2] or str(error)
        ) from error


def _trained_spec(spec: ModelSpec, config: TrainingConfig, result: Scores, epoch: int) -> ModelSpec:
    metrics = {} if "val" in config.splits else _metrics(spec.classes, result)
    return replace(spec, training={"epoch": epoch, **_portable(config)}, metrics=metrics)


def _metrics(classes: ClassTable, result: Scores) -> dict[str, Any]:
    return {
        "val_miou": round(result.miou, 4),
        "val_pixel_accuracy": round(result.pixel_accuracy, 4),
        "val_iou": {name: round(float(iou), 4) for name, iou in zip(classes.names, result.iou)},
    }


def _portable(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as plain YAML types; paths are reduced to the last name."""
    values: dict[str, Any] = asdict(config)
    for key in ("name", "architecture", "backbone", "fusion", "head", "resolution"):
        del values[key]
    values |= {key: Path(values[key]).name for key in ("data", "init", "teacher")}
    values["extra_data"] = [str(replace(data, folder=Path(data.folder).name)) for data in config.extra_data]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
