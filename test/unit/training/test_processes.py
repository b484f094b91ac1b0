# SPDX-License-Identifier: Apache-2.0
"""The device of each process of a training, with a fake of torch.cuda."""

from __future__ import annotations

import pytest
import torch

from canet_ros.training.processes import distributed_context


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "device", "expected"),
    [
        ({}, "cuda", ("cuda:0", 0, 1)),
        ({}, "cuda:3", ("cuda:3", 0, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, "cuda", ("cuda:1", 5, 8)),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cpu", ("cpu", 1, 2)),
    ],
)
def test_every_process_has_a_device(
    environment: dict[str, str], device: str, expected: tuple[str, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = distributed_context(device)
    assert (context.device, context.rank, context.world_size) == expected


@pytest.mark.parametrize(
    ("environment", "device", "words"),
    [
        ({}, "cuda:4", "this machine has 4 GPUs"),
        ({"RANK": "4", "LOCAL_RANK": "4", "WORLD_SIZE": "8"}, "cuda", "as many processes as GPUs"),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "cuda:0", "give cuda"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "cuda", "LOCAL_RANK"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "cpu", "RANK"),
    ],
)
def test_sharing_a_gpu_is_refused(
    environment: dict[str, str], device: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        distributed_context(device)
