# SPDX-License-Identifier: Apache-2.0
"""The torch engine's graph as on CUDA, without a GPU: where its tensors are, and that nothing waits for the device.

PyTorch's FakeTensorMode knows device, type and shape of every tensor and computes nothing: an operation over two
devices raises, and so does one whose result the CPU would have to wait for.

Not asserted: kernels, masks and speed of a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from canet_ros.engines.torch_engine import in_type
from canet_ros.model.deployment_module import DeploymentModule
from canet_ros.model.model_folder import load_network


class Indexing(TorchFunctionMode):
    """Indexing by slices as operators: Python's own asks for CUDA, which a PyTorch for CPUs has not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        x, index = args
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            place = index.index(Ellipsis)
            named = sum(entry is not None for entry in index) - 1
            index = (*index[:place], *[slice(None)] * (x.ndim - named), *index[place + 1 :])
        dim = 0
        for entry in index:
            if entry is None:
                x = torch.ops.aten.unsqueeze.default(x, dim)
            elif isinstance(entry, slice):
                x = torch.ops.aten.slice.Tensor(x, dim, entry.start, entry.stop, entry.step or 1)
            else:
                x, dim = torch.ops.aten.select.int(x, dim, entry), dim - 1
            dim += 1
        return x


def run_on_cuda(graph: DeploymentModule, stays: str = "") -> tuple[Tensor, Tensor]:
    """Run the graph with all parameters and buffers on CUDA but for the one of this name."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(tensor: Tensor, device: str) -> Tensor:
        return FakeTensor(mode, tensor.detach().to("meta"), torch.device(device))

    tensors = {
        name: fake(tensor, "cpu" if name == stays else "cuda:0")
        for name, tensor in (*graph.named_parameters(), *graph.named_buffers())
    }
    images = fake(torch.zeros(2, 120, 160, 3, dtype=torch.uint8), "cuda:0")
    with mode, Indexing(), torch.no_grad():
        mask, confidence = torch.func.functional_call(graph, tensors, (images,))
    return mask, confidence


@pytest.fixture(params=["fp32", "fp16", "bf16"])
def graph(request: pytest.FixtureRequest, random_model: Path) -> DeploymentModule:
    spec, network = load_network(random_model)
    return in_type(DeploymentModule(spec, network, (160, 120)).eval(), request.param)


def test_all_of_it_is_on_the_gpu_and_nothing_waits(graph: DeploymentModule) -> None:
    for plane in run_on_cuda(graph):
        assert (plane.device.type, plane.dtype, tuple(plane.shape)) == ("cuda", torch.uint8, (2, 120, 160))


def test_weights_are_in_the_type_that_it_computes_in(random_model: Path) -> None:
    spec, network = load_network(random_model)
    graph = in_type(DeploymentModule(spec, network, (160, 120)).eval(), "fp16")
    assert {parameter.dtype for parameter in graph.parameters()} == {torch.float16}
    seen: dict[str, torch.dtype] = {}
    graph.network.head.register_forward_pre_hook(lambda module, inputs: seen.update(head=inputs[0].dtype))
    handle = graph.classes.register_forward_pre_hook(
        lambda module, inputs: seen.update(logits=inputs[0].dtype)
    )
    images = torch.randint(0, 256, (1, 120, 160, 3), dtype=torch.uint8)
    with torch.inference_mode():
        half = graph(images)
        handle.remove()
        exact = DeploymentModule(spec, network, (160, 120)).eval()(images)
    assert seen["logits"] == torch.float16
    assert (half[0] == exact[0]).float().mean() > 0.98  # random weights are unsure of nearly every pixel


def test_a_tensor_left_on_the_cpu_is_found(graph: DeploymentModule) -> None:
    with pytest.raises(RuntimeError, match=r"cpu"):
        run_on_cuda(graph, stays="classes.corners")


def test_a_wait_is_found(graph: DeploymentModule) -> None:
    pixels = graph.pixels
    graph.pixels = lambda images: pixels(images) * float(pixels(images).amax().item())  # type: ignore[method-assign]
    with pytest.raises(DataDependentOutputException):
        run_on_cuda(graph)
