# SPDX-License-Identifier: Apache-2.0
"""Networks of other people, exported here with torch, through ``canet import`` and the engines: masks are PyTorch's.

Not asserted here: CUDA and TensorRT.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from canet_ros.cli import main
from canet_ros.engines import EngineRequest, create_engine
from canet_ros.errors import EngineError
from canet_ros.model.deployment import deployment_graph
from canet_ros.model.model_folder import ModelError, load_network, load_spec
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive, write_scenes

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.usefixtures("own_cache")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = ["--scale", "1/255", "--mean", *map(str, MEAN), "--std", *map(str, STD)]
RGB = ["--color", "rgb", *IMAGENET]
ENGINES = ("openvino", "onnxruntime")


def as_it_is(x: Tensor) -> Tensor:
    return x


class Network(nn.Module):
    """Convolutions of random weights to logits (B, classes, H/stride, W/stride), whose masks are not flat.

    ``ending`` makes of the logits what the network gives, ``beginning`` of what it takes normalised RGB (B, 3, H, W).
    """

    def __init__(
        self,
        stride: int = 4,
        classes: int = 11,
        ending: Callable[[Tensor], Tensor] = as_it_is,
        beginning: Callable[[Tensor], Tensor] = as_it_is,
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        strides = [2 if stride >= s else 1 for s in (2, 4, 8)]
        channels = (3, 12, 16, 24)
        self.layers = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], 3, strides[i], padding=1) for i in range(3)
        )
        self.head = nn.Conv2d(24, classes, 1)
        nn.init.normal_(self.head.weight, std=3)
        self.ending, self.beginning = ending, beginning

    def logits(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        out: Tensor = self.head(F.avg_pool2d(x, 5, 1, 2)) if min(x.shape[2:]) > 4 else self.head(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ending(self.logits(self.beginning(x)))
        return out


def export(
    network: nn.Module,
    path: Path,
    shape: Sequence[int] = (1, 3, 120, 160),
    free: Sequence[int] = (),
    opset: int = 17,
    dtype: torch.dtype = torch.float32,
    output: str = "out",
    input_: str = "in",
) -> Path:
    """Write a network as people do; ``free`` are the input's dimensions that are left open."""
    options: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(*shape, dtype=dtype),),
            str(path),
            input_names=[input_],
            output_names=[output],
            opset_version=opset,
            dynamic_axes={input_: {axis: f"side{axis}" for axis in free}},
            **options,
        )
    return path


def table(folder: Path, classes: int) -> str:
    path = folder / f"classes{classes}.yaml"
    entries = [{"name": f"class {i}", "color": [i, 255 - i, i]} for i in range(classes)]
    path.write_text(yaml.safe_dump(entries))
    return str(path)


def imported(path: Path, classes: int, *options: str) -> Path:
    folder = path.parent / f"model-{path.stem}"
    arguments = ["import", str(path), "--classes", table(path.parent, classes), "--out", str(folder)]
    assert main([*arguments, *options]) == 0
    return folder


def scene(size: tuple[int, int], seed: int = 1) -> NDArray[np.uint8]:
    return cv2.resize(StreetDrive(seed, 320, 240).frame(0).image, size, interpolation=cv2.INTER_AREA)


def normalised(image: NDArray[np.uint8], scale: float = 1 / 255, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """RGB (1, 3, H, W)."""
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float() * scale
    return (rgb - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def at_full_size(planes: Tensor, image: NDArray[np.uint8]) -> Tensor:
    return F.interpolate(planes, image.shape[:2], mode="bilinear", align_corners=False)


def assert_masks_are(
    folder: Path, image: NDArray[np.uint8], expected: Tensor, confidence: Tensor | None = None
) -> None:
    """In fp32, with both engines, of one image and of two."""
    size = (image.shape[1], image.shape[0])
    assert len(np.unique(expected)) > 1
    for name in ENGINES:
        engine = create_engine(EngineRequest(folder, size, name, "cpu", "fp32"))
        masks, confidences = engine.run(np.stack([image[:, ::-1], image]))
        assert masks.shape == confidences.shape == (2, size[1], size[0])
        assert masks.dtype == confidences.dtype == np.uint8
        assert (masks[1] == expected.numpy()).mean() >= 0.999, name
        if confidence is None:
            assert (confidences == 255).all()
            assert "confidence is 255" in engine.reason
        else:
            off = np.abs(confidences[1] - 255 * confidence.numpy())
            assert np.mean(off <= 1) >= 0.999, name


# --- Masks are PyTorch's -------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A network, what it takes of an image, how it is exported, and the options of its import."""

    make: Callable[[], nn.Module]
    taken: Callable[[NDArray[np.uint8]], Tensor] = normalised
    exported: dict[str, Any] = field(default_factory=dict)
    options: Sequence[str] = tuple(RGB)
    classes: int = 11
    size: tuple[int, int] = (160, 120)
    gives: str = "logits"

    def imported(self, network: nn.Module, folder: Path) -> Path:
        """The model folder."""
        return imported(export(network, folder / "net.onnx", **self.exported), self.classes, *self.options)

    def expected(self, out: Tensor, image: NDArray[np.uint8]) -> tuple[Tensor, Tensor | None]:
        """Mask and, but for ids, confidence, (H, W) each."""
        if self.gives == "ids":
            ids = out.reshape(1, 1, *out.shape[-2:]).float()
            ids = F.interpolate(ids, image.shape[:2], mode="nearest-exact")[0, 0]
            return torch.where((ids >= 0) & (ids < self.classes), ids, 255), None
        planes = out if out.shape[1] in (1, self.classes) else out.permute(0, 3, 1, 2)
        planes = at_full_size(planes.float(), image)[0]
        if len(planes) == 1:
            second = planes if self.gives == "probabilities" else planes.sigmoid()
            planes = torch.cat((1 - second, second))
        elif self.gives == "logits":
            planes = planes.softmax(0)
        best, mask = planes.max(0)
        return mask, best


def rgb_bytes(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image[None, ..., ::-1].copy())


def normalises_itself(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def less_the_mean(image: NDArray[np.uint8]) -> Tensor:
    bgr = (image.astype(np.float32) - np.float32((103.5, 116.3, 123.7))) / np.float32((57, 57, 58))
    return torch.from_numpy(bgr)[None]


def in_nhwc_at_full_size(x: Tensor) -> Tensor:
    full = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
    return full.softmax(1).permute(0, 2, 3, 1)


def one_channel(ending: Callable[[Tensor], Tensor]) -> Network:
    network = Network(2, 1, ending=ending)
    network.head.bias.data -= network.logits(normalised(scene((160, 120)))).median()
    return network


ANY_SIZE = {"exported": {"free": (0, 2, 3)}, "options": (*RGB, "--resolution", "96x64")}
NHWC = {"shape": (1, 65, 97, 3), "dtype": torch.uint8}
MEAN_BGR = ("--color", "bgr", "--mean", "103.5", "116.3", "123.7", "--std", "57", "57", "58")
CASES = {
    **{f"stride {s} at any size": Case(partial(Network, s), size=(161, 117), **ANY_SIZE) for s in (1, 2, 4, 8)},
    **{f"opset {o}": Case(partial(Network, 8), exported={"opset": o}) for o in (11, 13, 18)},
    **{
        f"ids in opset {o}": Case(lambda: Network(8, ending=lambda x: x.argmax(1)), exported={"opset": o}, gives="ids")
        for o in (11, 18)
    },
    # As TensorFlow's DeepLab: uint8 (1, H, W, 3) RGB in, logits (1, h, w, classes) out.
    "bytes in NHWC": Case(
        lambda: Network(8, 6, lambda x: x.permute(0, 2, 3, 1), normalises_itself),
        rgb_bytes, NHWC, ("--color", "rgb"), 6, (97, 65),
    ),
    # As Caffe's: mean of each channel in the order of the channels.
    "BGR pixels in NHWC floats": Case(
        lambda: Network(4, 5, beginning=lambda x: x.permute(0, 3, 1, 2)),
        less_the_mean, {"shape": (1, 64, 96, 3), "free": (0, 1, 2)}, (*MEAN_BGR, "--resolution", "96x64"), 5, (96, 64),
    ),
    "names of ours": Case(
        partial(Network, 4), exported={"input_": "images", "output": "mask", "free": (0,)},
        options=(*RGB, "--input", "images", "--output", "mask"),
    ),
    "softmax": Case(lambda: Network(4, ending=lambda x: x.softmax(1)), gives="probabilities"),
    "sigmoid": Case(lambda: Network(4, ending=lambda x: (x / 8).sigmoid()), gives="probabilities"),
    "softmax in halves": Case(lambda: Network(4, ending=lambda x: x.softmax(1).half()), gives="probabilities"),
    "softmax in NHWC": Case(lambda: Network(4, ending=in_nhwc_at_full_size), gives="probabilities"),
    "one channel of logits": Case(lambda: one_channel(as_it_is), classes=2),
    "one channel of probabilities": Case(lambda: one_channel(torch.sigmoid), classes=2, gives="probabilities"),
    **{
        f"ids, {kind}": Case(
            lambda kind=kind, keep=keep: Network(1, ending=lambda x: x.argmax(1, keepdim=keep).to(kind)),
            size=(96, 64), gives="ids", **ANY_SIZE,
        )
        for kind, keep in ((torch.uint8, False), (torch.int8, True), (torch.int64, False), (torch.float32, True))
    },
    "ids that no class has": Case(lambda: Network(1, ending=lambda x: x.argmax(1) * 25 - 1), classes=150, gives="ids"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_masks_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    network = case.make()
    folder = case.imported(network, tmp_path)
    interface = load_spec(folder).onnx
    assert interface is not None
    assert interface.gives == case.gives
    free = case.exported.get("free", ())
    assert (interface.free_batch, interface.free_size) == (0 in free, len(free) > 1)
    image = scene(case.size)
    assert_masks_are(folder, image, *case.expected(network(case.taken(image)), image))


@torch.inference_mode()
def test_weights_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    network = Network(4)
    file = export(network, tmp_path / "net.onnx")
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="net.data", size_threshold=0)
    folder = imported(file, 11, *RGB)
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.yaml"]
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "model.onnx").write_bytes(file.read_bytes())
    (tmp_path / "hand" / "net.data").write_bytes((tmp_path / "net.data").read_bytes())
    (tmp_path / "hand" / "model.yaml").write_bytes((folder / "model.yaml").read_bytes())
    image = scene((160, 120))
    best, mask = at_full_size(network(normalised(image)), image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)
    assert_masks_are(tmp_path / "hand", image, mask, best)


def as_old_exporters_do(model: Any) -> None:
    model.ir_version = 3  # and weights that are no inputs


def any_size_is_minus_one(model: Any) -> None:
    for side in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[side].dim_value = -1


def no_shape_of_the_output(model: Any) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def domains_that_nothing_is_of(model: Any) -> None:
    model.opset_import.extend(
        onnx.helper.make_opsetid(name, 1) for name in ("com.microsoft", "ai.onnx.training", "pkg.x")
    )


def in_halves_by_onnxruntime(model: Any) -> None:
    """Whose converter leaves the casts of inputs after what reads them."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model.CopyFrom(convert_float_to_float16(model, keep_io_types=True))


def a_branch_with_weights_of_outside(model: Any) -> None:
    """As a scripted ``if``."""
    make = onnx.helper
    for node in model.graph.node:
        node.output[:] = ["logits" if name == "out" else name for name in node.output]
    branches = [
        make.make_graph([make.make_node("Mul", ["logits", weight], [out])], out, [], [made])
        for weight, out in (("one", "then"), ("half", "else"))
        for made in [make.make_tensor_value_info(out, 1, None)]
    ]
    for name, value in (("one", np.float32([1])), ("half", np.float32([0.5])), ("yes", np.array(True))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.graph.node.append(
        make.make_node("If", ["yes"], ["out"], then_branch=branches[0], else_branch=branches[1])
    )


@pytest.mark.parametrize(
    "change",
    [
        as_old_exporters_do,
        any_size_is_minus_one,
        no_shape_of_the_output,
        domains_that_nothing_is_of,
        in_halves_by_onnxruntime,
        a_branch_with_weights_of_outside,
    ],
)
@torch.inference_mode()
def test_what_other_exporters_and_converters_leave(change: Callable[[Any], None], tmp_path: Path) -> None:
    network = Network(4)
    file = export(network, tmp_path / "net.onnx")
    model = onnx.load(file)
    change(model)
    file.write_bytes(model.SerializeToString())
    folder = imported(file, 11, *RGB, "--resolution", "160x120")
    image = scene((160, 120))
    mask = at_full_size(network(normalised(image)), image).argmax(1)[0]
    for name in ENGINES:
        engine = create_engine(EngineRequest(folder, (160, 120), name, "cpu", "fp32"))
        least = 0.99 if change is in_halves_by_onnxruntime else 0.999  # against PyTorch's floats
        assert (engine.run(image[None])[0][0] == mask.numpy()).mean() >= least, name
    graph = deployment_graph(folder, (160, 120), "tensorrt", "fp16")
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    assert (session.run(["mask"], {"images": image[None]})[0][0] == mask.numpy()).mean() >= 0.99


# --- Every precision, every command --------------------------------------------------------------------------------


@torch.inference_mode()
def test_precisions_and_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nncf")
    network = Network(4)
    folder = imported(export(network, tmp_path / "net.onnx"), 11, *RGB)
    image = scene((160, 120))
    expected = at_full_size(network(normalised(image)), image).argmax(1)[0].numpy()
    engine = create_engine(EngineRequest(folder, (160, 120), device="cpu"))
    assert engine.name == "openvino"
    assert "torch" not in engine.reason
    assert (engine.run(image[None])[0] == expected).mean() > 0.98
    for size in ("96x64", "camera"):
        with pytest.raises(ModelError, match="takes images of 160x120 only"):
            Segmenter.load(folder, resolution=size)
    with pytest.raises(EngineError, match="is an ONNX network; use openvino, onnxruntime or tensorrt"):
        create_engine(EngineRequest(folder, (160, 120), "torch"))
    with pytest.raises(ModelError, match="is an ONNX network"):
        load_network(folder)
    with pytest.raises(EngineError, match="--calibrate"):
        create_engine(EngineRequest(folder, (160, 120), "openvino", "cpu", "int8"))
    for seed in range(6):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), scene((160, 120), seed))
    assert main(["export", "--model", str(folder), "--calibrate", str(tmp_path), "--pictures", "6"]) == 0
    for name in ENGINES:
        masks, _ = create_engine(EngineRequest(folder, (160, 120), name, "cpu", "int8")).run(image[None])
        assert (masks == expected).mean() > 0.9, name
    # fp16 is for GPUs; its graph gives the same anywhere.
    half = tmp_path / "half.onnx"
    assert main(["export", "--model", str(folder), "--precision", "fp16", "--out", str(half)]) == 0
    kinds = {tensor.data_type for tensor in onnx.load(half).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    session = onnxruntime.InferenceSession(str(half), providers=["CPUExecutionProvider"])
    assert (session.run(["mask"], {"images": image[None]})[0] == expected).mean() > 0.98


@torch.inference_mode()
def test_every_command_takes_such_a_folder(tmp_path: Path) -> None:
    folder = imported(export(Network(4), tmp_path / "net.onnx"), 11, *RGB)
    write_scenes(tmp_path / "data" / "val", 2, 5, 160, 120)
    model, data = ["--model", str(folder)], ["--data", str(tmp_path / "data")]
    assert main(["evaluate", *model, *data, "--json", str(tmp_path / "figures.json")]) == 0
    assert "miou" in json.loads((tmp_path / "figures.json").read_text())
    kinds = ["--engine", *ENGINES, "torch", "--precision", "fp32", "--rounds", "1"]
    assert main(["benchmark", *model, *data, *kinds, "--json", str(tmp_path / "times.json")]) == 0
    rows = {row["engine"]: row for row in json.loads((tmp_path / "times.json").read_text())["engines"]}
    assert "is an ONNX network" in rows["torch"]["error"]
    assert min(rows[engine]["agreement"] for engine in ENGINES) > 0.999


# --- What is asked, and what is refused ----------------------------------------------------------------------------


def test_one_error_names_every_option_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pooled = Network(4, beginning=lambda x: F.max_pool2d(x, 2))  # says nothing about the layout of its input
    file = export(pooled, tmp_path / "net.onnx", free=(0, 1, 2, 3))
    assert main(["import", str(file), "--out", str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    for option in ("--classes", "--color", "--scale", "--mean", "--std", "--resolution", "--input-layout"):
        assert option in error
    assert not (tmp_path / "model").exists()


def custom(model: Any) -> None:
    model.graph.node[0].domain = "com.acme"
    model.graph.node[0].op_type = "Magic"
    model.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))


def opset(version: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.opset_import[0].version = version

    return change


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")


def second_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("prompt", 1, [1]))
    model.graph.node.append(onnx.helper.make_node("Add", ["out", "prompt"], ["told"]))
    model.graph.output[0].name = "told"


def second_output(model: Any) -> None:
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, ["b", "c", "h", "w"])
    )


def nothing(model: Any) -> None:
    pass


def not_a_number(model: Any) -> None:
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(onnx.helper.make_node("Mul", ["logits", "nan"], ["out"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([np.nan]), "nan"))


def signed_bytes(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (custom, [], "operators outside of the ONNX standard: com.acme::Magic (1)"),
        (opset(9), [], "opset 9: export it again with opset 11 or newer"),
        (opset(99), [], "opset 99, newer than"),
        (outside, [], "'../secret.bin', outside of the model's folder"),
        (second_input, [], "--input NAME, one of in, prompt"),
        (second_input, ["--input", "in"], "takes the inputs prompt beside 'in'"),
        (second_output, [], "--output NAME, one of out, "),
        (nothing, ["--output-kind", "ids"], "class ids are (B, H, W)"),
        (nothing, ["--output-layout", "NHWC"], "11 classes, not 40 (NHWC)"),
        (nothing, ["--input-layout", "NHWC"], "(1, 3, 120, 160), as NHWC: an image has 3 channels"),
        (nothing, ["--std", "-1", "1", "1"], "std must be above 0"),
        (not_a_number, [], "is not a number (NaN) on the image"),
        (signed_bytes, None, "--scale, --mean and --std, for an input of floats or int8"),
    ],
)
def test_refusals_of_an_import(
    change: Callable[[Any], None],
    options: list[str] | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(10**6))
    (tmp_path / "in").mkdir()
    file = export(Network(4), tmp_path / "in" / "net.onnx")
    model = onnx.load(file)
    change(model)
    file.write_bytes(model.SerializeToString())
    arguments = ["import", str(file), "--classes", table(tmp_path, 11), "--out", str(tmp_path / "model")]
    assert main([*arguments, *(["--color", "rgb"] if options is None else [*RGB, *options])]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert str(file) in error
    assert "Traceback" not in error
    assert not (tmp_path / "model").exists()


def test_what_is_no_onnx_file_and_what_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.tflite").touch()
    assert main(["import", str(tmp_path / "net.tflite"), "--out", str(tmp_path / "model")]) == 1
    assert "import any other network as FILE.onnx" in capsys.readouterr().err
    for content in (b"", b"no graph at all", bytes(1000)):
        (tmp_path / "x.onnx").write_bytes(content)
        assert main(["import", str(tmp_path / "x.onnx"), "--out", str(tmp_path / "model")]) == 1
        assert "x.onnx is not a readable ONNX file" in capsys.readouterr().err
    file = export(Network(4), tmp_path / "net.onnx")
    monkeypatch.setattr("canet_ros.model.onnx_file.MAX_BYTES", 1000)
    assert main(["import", str(file), "--out", str(tmp_path / "model")]) == 1
    assert "more than the" in capsys.readouterr().err


class NeedsMultiplesOf8(Network):
    def forward(self, x: Tensor) -> Tensor:
        deep = F.interpolate(self.logits(x), scale_factor=8.0)
        return torch.cat((deep, x), 1)[:, :11]


def test_a_size_that_the_network_cannot_take(tmp_path: Path) -> None:
    file = export(NeedsMultiplesOf8(8), tmp_path / "net.onnx", free=(0, 2, 3))
    folder = imported(file, 11, *RGB, "--resolution", "96x64")
    for engine in ("auto", *ENGINES):
        with pytest.raises((EngineError, ModelError), match=r"does not (run|start)"):
            Segmenter.load(folder, "cpu", engine, "fp32", "97x65")
