# SPDX-License-Identifier: Apache-2.0
"""A backbone with fewer hidden channels answers as the wide one did."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from canet_ros.inference import Segmenter
from canet_ros.inference.model_folder import ModelError, find_model, load_network
from canet_ros.simulation import write_scenes
from canet_ros.training.narrowing import narrow_stem

WIDE = find_model("canet-mobilenet_v2-camvid")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("streets")
    write_scenes(folder, 6, first_seed=97000)
    return sorted((folder / "images").iterdir())


def test_narrow_blocks_answer_as_the_wide_ones(pictures: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    chosen = narrow_stem(WIDE, pictures[:4], {2: 48, 4: 72}, tmp_path / "chosen", steps=1, crop=(160, 120))
    torch.manual_seed(0)
    learned = narrow_stem(WIDE, pictures[:4], {2: 48, 4: 72}, tmp_path / "learned", steps=60, crop=(160, 120))
    assert len(learned) == 3
    assert max(chosen) < 0.3
    assert learned[-1] < 0.9 * chosen[-1]
    spec, network = load_network(tmp_path / "learned")
    assert spec.hidden_channels == {2: 48, 4: 72}
    wide = load_network(WIDE)[1].state_dict()
    for name, tensor in network.state_dict().items():
        if not name.startswith(tuple(f"context_branch.backbone.features.{number}." for number in (2, 3, 4))):
            torch.testing.assert_close(tensor, wide[name], atol=1e-3, rtol=1e-3)  # stored as fp16
    unseen = cv2.imread(str(pictures[5]))
    assert unseen is not None
    masks = [Segmenter.load(str(model), "cpu")(unseen).mask for model in (WIDE, tmp_path / "learned")]
    assert np.mean(masks[0] == masks[1]) > 0.9
    with pytest.raises(ValueError, match="expected fewer than the 48 that there are"):
        narrow_stem(tmp_path / "learned", pictures, {2: 48}, tmp_path / "again")


def test_what_cannot_be_narrowed(pictures: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this one has resnet18"):
        narrow_stem(find_model("canet-resnet18-camvid"), pictures, {2: 48}, tmp_path)
    with pytest.raises(ValueError, match="no block 30"):
        narrow_stem(WIDE, pictures, {30: 48}, tmp_path)
    with pytest.raises(ValueError, match="expected pictures"):
        narrow_stem(WIDE, [], {2: 48}, tmp_path)
    (tmp_path / "none.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"none\.png is no picture"):
        narrow_stem(WIDE, [tmp_path / "none.png"], {2: 48}, tmp_path)
