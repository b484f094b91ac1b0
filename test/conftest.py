# SPDX-License-Identifier: Apache-2.0
"""What several tests share: a small model with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from canet_ros.inference.class_table import load_class_table
from canet_ros.inference.model_folder import ModelSpec, save_model


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CANet-Lite with 11 classes at 160x120, random weights of a fixed seed, whose masks are not flat."""
    torch.manual_seed(7)
    spec = ModelSpec("random", load_class_table("camvid"), architecture="canet_lite", resolution=(160, 120))
    network = spec.build_network()
    with torch.no_grad():
        network.train()
        for _ in range(3):
            network(torch.randn(4, 3, 120, 160))
    folder = tmp_path_factory.mktemp("models") / "random"
    save_model(folder, spec, network.eval())
    return folder
