# SPDX-License-Identifier: Apache-2.0
"""The deployment graph in PyTorch: from the pixels of an image to class ids.

Only bytes go in and only bytes come out; normalisation, network, upsampling and argmax run on the device.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canet_ros.model.model_folder import ModelSpec, Resolution
from canet_ros.network import SegmentationNetwork

_CANDIDATES = 3


class DeploymentModule(nn.Module):
    """uint8 images (B, h, w, 3) BGR to uint8 class ids (B, h, w) and uint8 confidence (B, h, w).

    Confidence is the softmax probability of the chosen class, 0..255. ``resolution`` is (w, h).
    """

    zero: Tensor

    def __init__(self, spec: ModelSpec, network: SegmentationNetwork, resolution: Resolution) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self._temperature = spec.temperature
        if network.stride_of_logits > 1:
            self.classes = UpsampledArgmax(
                _shape_of_logits(network, resolution), resolution, network.stride_of_logits, spec.temperature
            )
        mean_bgr, std_bgr = 255 * torch.tensor(spec.mean[::-1]), 255 * torch.tensor(spec.std[::-1])
        zero = mean_bgr.round()
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d) and module.in_channels == 3:
                _fold_normalisation(module, (mean_bgr - zero) / std_bgr, std_bgr)
        self.register_buffer("zero", zero.repeat(resolution[0]), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network.coarse_logits(self.pixels(images))
        if self.network.stride_of_logits > 1:
            mask, confidence = self.classes(logits)
            return mask, confidence
        best, mask = _cooled(logits.float(), self._temperature).softmax(1).max(1)
        return mask.to(torch.uint8), (255 * best + 0.5).to(torch.uint8)

    def pixels(self, images: Tensor) -> Tensor:
        """Images to the network's input, float (B, 3, h, w): whole numbers around 0."""
        # In rows of numbers: subtracted from pixels, channels first, OpenVINO copies the image three times.
        rows = images.flatten(2).to(self.zero.dtype) - self.zero
        return rows.view(images.shape).permute(0, 3, 1, 2)


@torch.no_grad()
def _fold_normalisation(convolution: nn.Conv2d, offset_bgr: Tensor, std_bgr: Tensor) -> None:
    """Let a convolution over normalised RGB take BGR pixels.

    Whole numbers up to 256 are exact in bf16 and fp16, normalised pixels are not; and there is less to compute.
    """
    weight = convolution.weight.flip(1)
    convolution.bias = nn.Parameter(-(weight * offset_bgr.view(1, 3, 1, 1)).sum((1, 2, 3)))
    convolution.weight.copy_(weight / std_bgr.view(1, 3, 1, 1))


def _shape_of_logits(network: SegmentationNetwork, resolution: Resolution) -> tuple[int, int, int]:
    """(C, h, w): a network may give more of them than its stride asks for. Nothing is computed."""
    width, height = resolution
    logits = copy.deepcopy(network).to("meta").coarse_logits(torch.empty(1, 3, height, width, device="meta"))
    return (logits.shape[1], logits.shape[2], logits.shape[3])


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits * (1 / temperature)


class UpsampledArgmax(nn.Module):
    """Coarse logits to class ids and confidence, (B, h, w) uint8 each; ``resolution`` is (w, h).

    Logits are (B, C, rows, columns), one every ``stride_of_logits`` pixels; ``shape`` is (C, rows, columns).

    Equals bilinear upsampling (half-pixel centres), softmax and argmax of C planes at full size, without the memory
    traffic of such planes. In the cell between four neighbouring logits every pixel is a convex combination of the
    four, so a class that is low at all of them cannot win there: only the few classes with the highest peaks in a
    cell go to full size. The rest count in the confidence as one class that holds their summed probability.
    """

    weights: Tensor
    corners: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        resolution: Resolution,
        stride_of_logits: int,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self._temperature = temperature
        classes, rows, columns = shape
        self._candidates = min(_CANDIDATES, classes)
        self._stride = stride_of_logits
        self._width, self._height = resolution
        # Of the right or lower logit, at each place of a cell: pixels have half-pixel centres.
        weights = (torch.arange(stride_of_logits) + 0.5) / stride_of_logits
        self.register_buffer("weights", weights, persistent=False)
        # Where in a plane of logits the corners of each cell lie: (top or bottom, left or right, cells y * cells x).
        # The outermost cells have one logit for both of their sides.
        self._rows_of_cells = rows + 1
        y = torch.arange(-1, rows).add(torch.tensor([[0], [1]])).clamp(0, rows - 1)
        x = torch.arange(-1, columns).add(torch.tensor([[0], [1]])).clamp(0, columns - 1)
        corners = columns * y.view(2, 1, -1, 1) + x.view(1, 2, 1, -1)
        self.register_buffer("corners", corners.flatten(2), persistent=False)

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        batch, classes, height, width = logits.shape
        # Flat until columns are made: of channels that come last, OpenVINO's topk takes ten times as long.
        logits = _cooled(logits.float(), self._temperature).flatten(2)
        # A shift common to all classes changes neither argmax nor softmax; with the maximum at 0, exp cannot overflow.
        logits = logits - logits.amax(1, keepdim=True)
        planes = torch.cat((logits, logits.exp().sum(1, keepdim=True)), 1)

        peaks = F.pad(logits.view(batch, classes, height, width), (1, 1, 1, 1), mode="replicate")
        peaks = torch.maximum(peaks[:, :, :-1], peaks[:, :, 1:])
        peaks = torch.maximum(peaks[..., :-1], peaks[..., 1:])
        ids = peaks.flatten(2).topk(self._candidates, dim=1).indices  # (B, candidates, cells)
        # By places in the whole tensor: torch.gather, as ONNX has it, is slow on CPUs.
        image = torch.arange(batch, device=ids.device).view(-1, 1, 1)
        plane = torch.cat((ids, torch.full_like(ids[:, :1], classes)), 1) + (classes + 1) * image
        places = height * width * plane
        top, bottom = (
            self._to_columns(*(self._with_rest(planes.take(places + corner)) for corner in side))
            for side in self.corners
        )
        ids_of_columns = ids.to(logits.dtype).unsqueeze(-1) * torch.ones_like(self.weights)
        return self._best(top, bottom, self._in_rows(ids_of_columns))

    def _with_rest(self, corner: Tensor) -> Tensor:
        """Logits of the candidates and the sum of all probabilities to logits of candidates and of the rest."""
        chosen, total = corner[:, :-1], corner[:, -1:]
        rest = total - chosen.exp().sum(1, keepdim=True)
        return torch.cat((chosen, rest.clamp(min=1e-6).log()), 1)

    def _to_columns(self, left: Tensor, right: Tensor) -> Tensor:
        return self._in_rows(left.unsqueeze(-1) + (right - left).unsqueeze(-1) * self.weights)

    def _in_rows(self, columns: Tensor) -> Tensor:
        """(B, N, cells, stride) to (B, N, cells y, 1, cells x * stride)."""
        return columns.view(*columns.shape[:2], self._rows_of_cells, 1, -1)

    def _best(self, top: Tensor, bottom: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Class and confidence of every pixel; top and bottom (B, candidates + 1, cells y, 1, cells x * stride)."""
        planes = [
            top[:, k] + (bottom[:, k] - top[:, k]) * self.weights.unsqueeze(-1) for k in range(top.shape[1])
        ]
        best, mask, others = planes[0], ids[:, 0], planes[-1:]
        for k in range(1, self._candidates):
            mask = torch.where(planes[k] > best, ids[:, k], mask)
            others.append(torch.minimum(planes[k], best))
            best = torch.maximum(planes[k], best)
        total = 1 + (others[0] - best).exp()
        for other in others[1:]:
            total = total + (other - best).exp()
        return self._in_pixels(mask), self._in_pixels(255 / total + 0.5)

    def _in_pixels(self, cells: Tensor) -> Tensor:
        plane = cells.to(torch.uint8).flatten(1, 2)
        margin = self._stride // 2
        return plane[:, margin : margin + self._height, margin : margin + self._width]
