# SPDX-License-Identifier: Apache-2.0
"""One graph from the pixels of a picture to class ids: what every engine runs, and what is exported.

Only bytes go in and only bytes come out; normalisation, network, upsampling and argmax stay on the device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from canet_ros.inference.model_folder import ModelSpec, Resolution
from canet_ros.network import SegmentationNetwork

_CANDIDATES = 4


class PixelsToClasses(nn.Module):
    """uint8 pictures (B, h, w, 3) BGR to uint8 class ids (B, h, w) and uint8 confidence (B, h, w).

    Confidence is the softmax probability of the chosen class, 0..255. ``resolution`` is (w, h).
    """

    zero: Tensor

    def __init__(self, spec: ModelSpec, network: SegmentationNetwork, resolution: Resolution) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self._temperature = spec.temperature
        if network.stride_of_logits > 1:
            self.classes = ClassesAtFullSize(
                len(spec.classes), resolution, network.stride_of_logits, spec.temperature
            )
        mean_bgr, std_bgr = 255 * torch.tensor(spec.mean[::-1]), 255 * torch.tensor(spec.std[::-1])
        zero = mean_bgr.round()
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels == 3:
                _fold_normalisation(module, (mean_bgr - zero) / std_bgr, std_bgr)
        self.register_buffer("zero", zero.view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.coarse_logits(self.pixels(images))
        if self.network.stride_of_logits > 1:
            mask, confidence = self.classes(logits)
            return mask, confidence
        best, mask = _cooled(logits.float(), self._temperature).softmax(1).max(1)
        return mask.to(torch.uint8), (255 * best + 0.5).to(torch.uint8)

    def pixels(self, images: Tensor) -> Tensor:
        """Pictures to the network's input, float (B, 3, h, w): whole numbers around 0."""
        return images.permute(0, 3, 1, 2).to(self.zero.dtype) - self.zero


@torch.no_grad()
def _fold_normalisation(convolution: nn.Conv2d, offset_bgr: Tensor, std_bgr: Tensor) -> None:
    """Let a convolution over normalised RGB take BGR pixels.

    Whole numbers up to 256 are exact in bf16 and fp16, normalised pixels are not; and there is less to compute.
    """
    weight = convolution.weight.flip(1)
    convolution.bias = nn.Parameter(-(weight * offset_bgr.view(1, 3, 1, 1)).sum((1, 2, 3)))
    convolution.weight.copy_(weight / std_bgr.view(1, 3, 1, 1))


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits * (1 / temperature)


class ClassesAtFullSize(nn.Module):
    """Coarse logits to class ids and confidence, (B, h, w) uint8 each; ``resolution`` is (w, h).

    Logits are (B, C, 8/s ceil(h/8), 8/s ceil(w/8)), s being ``stride_of_logits``.

    Equals bilinear upsampling (half-pixel centres), softmax and argmax of C planes at full size, without the memory
    traffic of such planes. In the cell between four neighbouring logits every pixel is a convex combination of the
    four, so a class that is low at all of them cannot win there: only the few classes with the highest peaks in a
    cell go to full size. The rest count in the confidence as one class that holds their summed probability.
    """

    weights: Tensor

    def __init__(
        self, classes: int, resolution: Resolution, stride_of_logits: int, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self._temperature = temperature
        self._candidates = min(_CANDIDATES, classes)
        self._stride = stride_of_logits
        # Of the right or lower logit, at each place of a cell: pixels have half-pixel centres.
        weights = (torch.arange(stride_of_logits) + 0.5) / stride_of_logits
        self.register_buffer("weights", weights, persistent=False)
        self._width, self._height = resolution

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        candidates = self._candidates
        # A shift common to all classes changes neither argmax nor softmax; with the maximum at 0, exp cannot overflow.
        logits = _cooled(logits.float(), self._temperature)
        logits = logits - logits.amax(1, keepdim=True)
        logits = torch.cat((logits[:, :, :1], logits, logits[:, :, -1:]), 2)
        logits = torch.cat((logits[..., :1], logits, logits[..., -1:]), 3)
        top, bottom = logits[:, :, :-1], logits[:, :, 1:]
        corners = torch.stack((top[..., :-1], bottom[..., :-1], top[..., 1:], bottom[..., 1:]), 2)

        # (B, candidates, 1, cells y, cells x)
        ids = corners.amax(2, keepdim=True).topk(candidates, dim=1).indices
        chosen = corners.gather(1, ids.expand(-1, -1, 4, -1, -1))
        rest = corners.exp().sum(1, keepdim=True) - chosen.exp().sum(1, keepdim=True)
        corners = torch.cat((chosen, rest.clamp(min=1e-6).log()), 1).unsqueeze(-1)

        left, right = corners[:, :, :2], corners[:, :, 2:]
        # (B, candidates + 1, 2, cells y, cells x * stride)
        columns = (left + (right - left) * self.weights).flatten(4)
        top, bottom = columns[:, :, 0].unsqueeze(3), columns[:, :, 1].unsqueeze(3)
        slope = bottom - top
        planes = [top[:, k] + slope[:, k] * self.weights.unsqueeze(-1) for k in range(candidates + 1)]
        ids_of_columns = (ids.to(logits.dtype).unsqueeze(-1) * torch.ones_like(self.weights)).flatten(4)

        # (B, cells y, 1 or stride, cells x * stride)
        best, mask = planes[0], ids_of_columns[:, 0].transpose(1, 2)
        for k in range(1, candidates):
            mask = torch.where(planes[k] > best, ids_of_columns[:, k].transpose(1, 2), mask)
            best = torch.maximum(best, planes[k])
        total = (planes[0] - best).exp()
        for plane in planes[1:]:
            total = total + (plane - best).exp()
        return self._in_pixels(mask), self._in_pixels(255 / total + 0.5)

    def _in_pixels(self, cells: Tensor) -> Tensor:
        plane = cells.to(torch.uint8).flatten(1, 2)
        margin = self._stride // 2
        return plane[:, margin : margin + self._height, margin : margin + self._width]
