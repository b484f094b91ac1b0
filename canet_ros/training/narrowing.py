# SPDX-License-Identifier: Apache-2.0
"""Fewer hidden channels in a MobileNetV2's first blocks, which move memory more than they compute; answers as before.

Those channels go first that the others make up for (least squares, as in He, Zhang and Sun, "Channel Pruning for
Accelerating Very Deep Neural Networks", ICCV 2017); then the narrow blocks learn what the wide ones answer. No labels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from canet_ros.inference.model_folder import ModelError, ModelSpec, load_network, save_model
from canet_ros.network.backbones import InvertedResidual, MobileNetV2
from canet_ros.opencv import read_picture
from canet_ros.training.augmentation import augment, view_shapes

_VIEWS = 4  # a step
_VIEWS_TO_CHOOSE_BY = 160
_PLACES = 6000  # of each batch of them
_RIDGE = 1e-6  # of the mean square: channels that are alike do not make the least squares singular
_LEARNING_RATE = 2e-3


def narrow_stem(
    model: Path,
    pictures: Sequence[Path],
    hidden_channels: Mapping[int, int],
    out: Path,
    steps: int = 3000,
    crop: tuple[int, int] = (480, 352),
    seed: int = 0,
) -> list[float]:
    """Write ``model`` with fewer hidden channels in some blocks of its backbone into the folder ``out``.

    Args:
        model: a model folder whose backbone is MobileNetV2.
        pictures: any pictures of what the model is for.
        hidden_channels: by the block's number.
        crop: (width, height) of the views, pixels; two of three are wider, of the same area.

    Returns:
        For each block from the first narrow one to the last the mean square of what its answer is off, in variances
        of the wide block's, on views that were not learned from.

    Raises:
        ModelError: the model is broken, or of another backbone.
        ValueError: a block does not exist, or is as narrow already; there is no picture, or one cannot be read.
        OSError: ``out`` cannot be written.
    """
    spec, network = load_network(model)
    if not isinstance(network.backbone, MobileNetV2):
        raise ModelError(f"{model}: only MobileNetV2's blocks can be narrowed, this one has {spec.backbone}")
    if not pictures or not hidden_channels:
        raise ValueError("nothing to narrow: expected pictures, and blocks with their numbers of channels")
    narrow_spec = replace(
        spec, hidden_channels={**spec.hidden_channels, **hidden_channels}, weights_sha256=""
    )
    narrow = narrow_spec.build_network().backbone
    assert isinstance(narrow, MobileNetV2)
    views = _views(pictures, spec, crop, np.random.default_rng(seed))
    first, last = min(hidden_channels), max(hidden_channels)
    before = network.backbone.features[:first]
    wide = [copy.deepcopy(network.backbone.features[number]) for number in range(first, last + 1)]
    with torch.no_grad():
        inputs = [before(next(views)) for _ in range(_VIEWS_TO_CHOOSE_BY // _VIEWS)]
        for number, block in zip(range(first, last + 1), wide):
            narrower = narrow.features[number]
            if number in hidden_channels and isinstance(block, InvertedResidual):
                _choose_channels(block, inputs, narrower, hidden_channels[number])
                network.backbone.features[number] = narrower.eval()
            inputs = [block(x) for x in inputs]
    blocks = [network.backbone.features[number] for number in range(first, last + 1)]
    deviations = _learn(before, wide, blocks, views, steps)
    save_model(out, narrow_spec, network)
    return deviations


def _views(
    pictures: Sequence[Path], spec: ModelSpec, crop: tuple[int, int], rng: np.random.Generator
) -> Iterator[Tensor]:
    """Batches (B, 3, H, W) of random views as the network takes them, without end."""
    shapes = view_shapes(crop, max_aspect=3.0)
    while True:
        shape = shapes[rng.integers(len(shapes))]
        batch = []
        for path in (pictures[int(rng.integers(len(pictures)))] for _ in range(_VIEWS)):
            image = read_picture(path)
            view, _ = augment(image, np.zeros(image.shape[:2], np.uint8), shape, rng)
            batch.append(view[:, :, ::-1].transpose(2, 0, 1))
        pixels = spec.normalize(torch.from_numpy(np.stack(batch)))
        yield pixels.contiguous(memory_format=torch.channels_last)


def _choose_channels(wide: InvertedResidual, inputs: Sequence[Tensor], narrow: nn.Module, fewer: int) -> None:
    """Fill ``narrow`` with those channels of ``wide`` that give its answer best, and a projection that fits them."""
    if fewer >= wide.hidden:
        raise ValueError(f"{fewer} hidden channels: expected fewer than the {wide.hidden} that there are")
    expand, depthwise, project, norm = wide.conv
    hidden: list[Tensor] = []
    answers: list[Tensor] = []
    for x in inputs:
        found = depthwise(expand(x))
        place = torch.randint(found.shape[2] * found.shape[3], (_PLACES // len(x),))
        for values, kept in ((found, hidden), (project(found), answers)):
            kept.append(values.flatten(2)[:, :, place].transpose(1, 2).reshape(-1, values.shape[1]).double())
    h, y = torch.cat(hidden), torch.cat(answers)
    h_mean, y_mean, y_deviation = h.mean(0), y.mean(0), y.std(0).clamp_min(1e-6)
    h, y = h - h_mean, (y - y_mean) / y_deviation
    gram = h.T @ h + _RIDGE * len(h) * torch.eye(h.shape[1])
    target = h.T @ y
    channels = list(range(h.shape[1]))
    while len(channels) > fewer:
        inverse = torch.linalg.inv(gram[channels][:, channels])
        cost = (inverse @ target[channels]).square().sum(1) / inverse.diagonal()
        channels.pop(int(cost.argmin()))
    weight = torch.linalg.solve(gram[channels][:, channels], target[channels]) * y_deviation
    state = {
        name: tensor[channels] if tensor.ndim else tensor
        for name, tensor in wide.state_dict().items()
        if name.startswith(("conv.0.", "conv.1."))
    }
    state |= {f"conv.3.{name}": tensor for name, tensor in norm.state_dict().items()}
    state["conv.2.weight"] = weight.T.float()[:, :, None, None]
    state["conv.3.running_mean"] = norm.running_mean - (y_mean - h_mean[channels] @ weight).float()
    narrow.load_state_dict(state)


def _learn(
    before: nn.Module,
    wide: Sequence[nn.Module],
    narrow: Sequence[nn.Module],
    views: Iterator[Tensor],
    steps: int,
) -> list[float]:
    """Teach ``narrow`` what ``wide`` answers, every block; what is left of the difference, as ``narrow_stem`` says."""

    def answers(blocks: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
        found = []
        for block in blocks:
            found.append(x := block(x))
        return found

    with torch.no_grad():
        unseen = [before(next(views)) for _ in range(8)]
        several = [
            torch.cat([y.flatten(2) for y in ys], 2) for ys in zip(*(answers(wide, x) for x in unseen))
        ]
    deviations = [y.std((0, 2)).clamp_min(1e-3)[None, :, None, None] for y in several]

    def differences(x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            asked = answers(wide, x)
        with torch.autocast("cpu", torch.bfloat16):
            given = answers(narrow, x)
        return [
            ((a.float() - b.float()) / deviation).square().mean()
            for a, b, deviation in zip(given, asked, deviations)
        ]

    parameters = [parameter for block in narrow for parameter in block.parameters()]
    optimizer = torch.optim.AdamW(parameters, _LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.05
    )
    bar = tqdm(range(steps), desc="narrow", unit="step")
    for _ in bar:
        with torch.no_grad():
            x = before(next(views))
        losses = differences(x)
        loss = torch.stack(losses).sum() + losses[-1]  # the last is what the network goes on with
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    with torch.no_grad():
        return [float(torch.stack(of_block).mean()) for of_block in zip(*(differences(x) for x in unseen))]
