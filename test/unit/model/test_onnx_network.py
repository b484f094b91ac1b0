# SPDX-License-Identifier: Apache-2.0
"""Networks of other people, exported here with torch, through ``canet import`` and the engines: masks are PyTorch's.

Not asserted here: CUDA and TensorRT.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Sequence
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
from canet_ros.model.model_folder import ModelError, load_network, load_spec
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import StreetDrive, write_scenes

onnx = pytest.importorskip("onnx")
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

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


@pytest.mark.parametrize("size", [(160, 120), (161, 117)])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@torch.inference_mode()
def test_logits_of_any_stride_at_any_size(stride: int, size: tuple[int, int], tmp_path: Path) -> None:
    network = Network(stride)
    file = export(network, tmp_path / "net.onnx", free=(0, 2, 3))
    folder = imported(file, 11, *RGB, "--resolution", "96x64")
    interface = load_spec(folder).onnx
    assert interface is not None
    assert (interface.free_size, interface.free_batch, interface.gives) == (True, True, "logits")
    image = scene(size)
    best, mask = at_full_size(network(normalised(image)), image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@torch.inference_mode()
def test_opsets(opset: int, tmp_path: Path) -> None:
    network = Network(8)
    try:
        file = export(network, tmp_path / "net.onnx", opset=opset)
    except ValueError as error:  # PyTorch 2.3 writes none above 19
        pytest.skip(str(error))
    folder = imported(file, 11, *RGB)
    image = scene((160, 120))
    best, mask = at_full_size(network(normalised(image)), image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)
    ids = Network(8, ending=lambda logits: logits.argmax(1))
    folder = imported(export(ids, tmp_path / "ids.onnx", opset=opset), 11, *RGB)
    mask = F.interpolate(ids(normalised(image))[None].float(), (120, 160), mode="nearest-exact")[0, 0]
    assert_masks_are(folder, image, mask)


@torch.inference_mode()
def test_a_fixed_network_of_pixels_in_nhwc_that_normalises_itself(tmp_path: Path) -> None:
    """As TensorFlow's DeepLab: uint8 (1, H, W, 3) RGB in, logits (1, h, w, classes) out."""

    def beginning(pixels: Tensor) -> Tensor:
        rgb = pixels.permute(0, 3, 1, 2).float()
        return rgb / 127.5 - 1

    network = Network(8, 6, ending=lambda x: x.permute(0, 2, 3, 1), beginning=beginning)
    file = export(network, tmp_path / "net.onnx", (1, 65, 97, 3), dtype=torch.uint8)
    folder = imported(file, 6, "--color", "rgb")
    spec = load_spec(folder)
    assert spec.resolution == (97, 65)
    assert spec.onnx is not None
    assert (spec.onnx.input_layout, spec.onnx.output_layout, spec.onnx.scale) == ("NHWC", "NHWC", 1)
    image = scene((97, 65))
    planes = network.logits(normalised(image, 1 / 127.5, (1.0,) * 3, (1.0,) * 3))
    best, mask = at_full_size(planes, image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)
    with pytest.raises(ModelError, match="takes images of 97x65 only"):
        Segmenter.load(folder, resolution="96x64")
    with pytest.raises(ModelError, match="takes images of 97x65 only"):
        Segmenter.load(folder, resolution="camera")


@torch.inference_mode()
def test_bgr_pixels_of_0_to_255_in_nhwc_floats(tmp_path: Path) -> None:
    """As Caffe's: mean of each channel in the order of the channels."""
    mean = (103.5, 116.3, 123.7)
    network = Network(4, 5, beginning=lambda x: x.permute(0, 3, 1, 2))
    file = export(network, tmp_path / "net.onnx", (1, 64, 96, 3), free=(0, 1, 2))
    options = [
        "--color",
        "bgr",
        "--mean",
        *map(str, mean),
        "--std",
        "57",
        "57",
        "58",
        "--resolution",
        "96x64",
    ]
    folder = imported(file, 5, *options)
    image = scene((96, 64))
    bgr = (image.astype(np.float32) - np.float32(mean)) / np.float32((57, 57, 58))
    planes = network(torch.from_numpy(bgr)[None])
    best, mask = at_full_size(planes, image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "softmax at full size in NHWC", "half"])
@torch.inference_mode()
def test_probabilities(ending: str, tmp_path: Path) -> None:
    endings: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": lambda x: x.softmax(1),
        "sigmoid": lambda x: (x / 8).sigmoid(),
        "softmax at full size in NHWC": lambda x: F.interpolate(
            x, scale_factor=4, mode="bilinear", align_corners=False
        ).softmax(1).permute(0, 2, 3, 1),
        "half": lambda x: x.softmax(1).half(),
    }  # fmt: skip
    network = Network(4, ending=endings[ending])
    folder = imported(export(network, tmp_path / "net.onnx"), 11, *RGB)
    assert yaml.safe_load((folder / "model.yaml").read_text())["output"]["gives"] == "probabilities"
    image = scene((160, 120))
    planes = network(normalised(image)).float()
    planes = planes.permute(0, 3, 1, 2) if "NHWC" in ending else planes
    best, mask = at_full_size(planes, image)[0].max(0)
    assert_masks_are(folder, image, mask, best)


@pytest.mark.parametrize("ending", ["logits", "sigmoid"])
@torch.inference_mode()
def test_one_channel_for_two_classes(ending: str, tmp_path: Path) -> None:
    network = Network(2, 1, ending=torch.sigmoid if ending == "sigmoid" else as_it_is)
    network.head.bias.data -= network.logits(normalised(scene((160, 120)))).median()
    folder = imported(export(network, tmp_path / "net.onnx"), 2, *RGB)
    image = scene((160, 120))
    plane = at_full_size(network(normalised(image)), image)[0, 0]
    second = plane if ending == "sigmoid" else plane.sigmoid()
    assert_masks_are(folder, image, second > 0.5, torch.maximum(second, 1 - second))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.float32])
@pytest.mark.parametrize("keepdim", [False, True])
@torch.inference_mode()
def test_class_ids_of_any_type(kind: torch.dtype, keepdim: bool, tmp_path: Path) -> None:
    network = Network(1, ending=lambda x: x.argmax(1, keepdim=keepdim).to(kind))
    folder = imported(
        export(network, tmp_path / "net.onnx", free=(0, 2, 3)), 11, *RGB, "--resolution", "160x120"
    )
    image = scene((96, 64))
    assert_masks_are(folder, image, network(normalised(image)).reshape(64, 96))


@torch.inference_mode()
def test_ids_that_no_class_has_are_255(tmp_path: Path) -> None:
    network = Network(1, ending=lambda x: x.argmax(1) * 25 - 1)
    folder = imported(export(network, tmp_path / "net.onnx"), 150, *RGB)
    image = scene((160, 120))
    ids = network(normalised(image))[0]
    assert_masks_are(folder, image, torch.where((ids >= 0) & (ids < 150), ids, 255))


class TwoHeads(Network):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.logits(x)[:, :3], self.logits(x)


@torch.inference_mode()
def test_names_of_ours_several_outputs_and_a_batch_that_is_not_free(tmp_path: Path) -> None:
    """Tensors called as ours are; a free batch that is declared, and baked into a reshape all the same."""
    network = TwoHeads(4)
    network.head = nn.Sequential(network.head, nn.Unflatten(1, (11, 1)), nn.Flatten(1, 2))
    file = tmp_path / "net.onnx"
    export(network, file, free=(0,), output="aux", input_="images")
    model = onnx.load(file)
    for node in model.graph.node:
        node.output[:] = ["mask" if name == model.graph.output[1].name else name for name in node.output]
    model.graph.output[1].name = "mask"
    shape = onnx.numpy_helper.from_array(np.array([1, 11, 30, 40]), "baked")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", ["mask", "baked"], ["confidence"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("confidence", 1, ["b", 11, 30, 40]))
    onnx.save(model, file)
    folder = imported(file, 11, *RGB, "--output", "confidence")
    interface = load_spec(folder).onnx
    assert interface is not None
    assert not interface.free_batch
    image = scene((160, 120))
    best, mask = at_full_size(network.logits(normalised(image)), image).softmax(1)[0].max(0)
    assert_masks_are(folder, image, mask, best)


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
    import onnxruntime

    session = onnxruntime.InferenceSession(str(half), providers=["CPUExecutionProvider"])
    assert (session.run(["mask"], {"images": image[None]})[0] == expected).mean() > 0.98


@torch.inference_mode()
def test_every_command_takes_such_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = imported(export(Network(4), tmp_path / "net.onnx"), 11, *RGB)
    for split in ("train", "val"):
        write_scenes(tmp_path / "data" / split, 2, 5, 160, 120)
    model, data = ["--model", str(folder)], ["--data", str(tmp_path / "data")]
    assert main(["evaluate", *model, *data, "--json", str(tmp_path / "figures.json")]) == 0
    assert "miou" in json.loads((tmp_path / "figures.json").read_text())
    image = sorted((tmp_path / "data" / "val" / "images").iterdir())[0]
    assert main(["segment", str(image), *model, "--out", str(tmp_path / "masks")]) == 0
    assert len(list((tmp_path / "masks").iterdir())) == 2
    kinds = ["--engine", *ENGINES, "torch", "--precision", "fp32", "--rounds", "1"]
    assert main(["benchmark", *model, *data, *kinds, "--json", str(tmp_path / "times.json")]) == 0
    rows = {row["engine"]: row for row in json.loads((tmp_path / "times.json").read_text())["engines"]}
    assert set(rows) == {"openvino", "onnxruntime", "torch"}
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


def four_channels(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4


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
        (four_channels, [], "an image has 3 channels"),
        (second_input, [], "--input NAME, one of in, prompt"),
        (second_input, ["--input", "in"], "takes the inputs prompt beside 'in'"),
        (second_output, [], "--output NAME, one of out, "),
        (second_output, ["--output", "mask"], "no output 'mask', only out, "),
        (nothing, ["--output-kind", "ids"], "class ids are (B, H, W)"),
        (nothing, ["--output-layout", "NHWC"], "11 classes, not 40 (NHWC)"),
        (nothing, ["--input-layout", "NHWC"], "(1, 3, 120, 160), as NHWC: an image has 3 channels"),
        (nothing, ["--std", "-1", "1", "1"], "std must be above 0"),
        (nothing, ["--scale", "0"], "scale not 0"),
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
