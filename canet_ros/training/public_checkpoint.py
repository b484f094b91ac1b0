# SPDX-License-Identifier: Apache-2.0
"""Import of the public CANet checkpoint on Cityscapes (zh320/realtime-semantic-segmentation-pytorch, Apache-2.0).

The network is CANet with MobileNetV2 and the ``transposed`` head. Its transposed convolutions have biases,
each followed by a batch norm; they are folded into its running mean, which does not change the result.
"""

from __future__ import annotations

import re
from pathlib import Path

from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import ModelSpec
from canet_ros.network import SegmentationNetwork
from canet_ros.training.initialization import read_state_dict, require_fit

_RENAMED_PREFIXES = (
    (r"context_branch\.backbone\.layer\d\.(\d+)\.", r"context_branch.backbone.features.\1."),
    (r"context_branch\.up1\.up_conv\.0\.", "context_branch.upsample_16.deconv."),
    (r"context_branch\.up1\.up_conv\.1\.", "context_branch.upsample_16.bn."),
    (r"context_branch\.up2\.up_conv\.0\.", "context_branch.upsample_8.deconv."),
    (r"context_branch\.up2\.up_conv\.1\.", "context_branch.upsample_8.bn."),
    (r"fca\.conv_init\.", "fusion.merge."),
    (r"fca\.sa\.0\.", "fusion.spatial_attention."),
    (r"fca\.ca\.fc\.", "fusion.channel_attention."),
    (r"fca\.conv_last\.0\.", "head.conv."),
    (r"fca\.conv_last\.1\.", "head.bn."),
    (r"up\.up_conv\.0\.", "head.deconv."),
    (r"up\.up_conv\.1\.", "head.deconv_bn."),
)
_BIASES_BEFORE_BATCH_NORM = {
    "context_branch.upsample_16.deconv.bias": "context_branch.upsample_16.bn.running_mean",
    "context_branch.upsample_8.deconv.bias": "context_branch.upsample_8.bn.running_mean",
    "head.deconv.bias": "head.deconv_bn.running_mean",
}


def import_public_checkpoint(
    file: Path, name: str, classes: ClassTable
) -> tuple[ModelSpec, SegmentationNetwork]:
    """Spec and network, in eval mode, of a checkpoint file; nothing in the file is executed.

    Raises:
        ModelError: the file is another checkpoint; the message names every tensor that is missing, unexpected or of
            another shape.
    """
    weights = {_our_name(key): tensor for key, tensor in read_state_dict(file).items()}
    for bias, running_mean in _BIASES_BEFORE_BATCH_NORM.items():
        if bias in weights and running_mean in weights:
            weights[running_mean] = weights[running_mean] - weights.pop(bias)

    spec = ModelSpec(
        name,
        classes,
        head="transposed",
        resolution=(1024, 512),
        training={
            "source": "canet.pth of zh320/realtime-semantic-segmentation-pytorch",
            "licence": "Apache-2.0 (code and weights); Cityscapes itself is for non-commercial use",
        },
    )
    network = spec.build_network()
    require_fit(network.state_dict(), weights, f"{file}, as CANet with {len(classes)} classes,")
    network.load_state_dict(weights)
    return spec, network.eval()


def _our_name(key: str) -> str:
    for pattern, ours in _RENAMED_PREFIXES:
        renamed, count = re.subn(f"^{pattern}", ours, key)
        if count:
            return renamed
    return key
