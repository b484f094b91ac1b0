# SPDX-License-Identifier: Apache-2.0
"""Training on a few synthetic scenes: learning, exact resumption, errors in the data."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from canet_ros.cli import main
from canet_ros.commands.train import add_training_options, training_config
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.model.model_folder import (
    WEIGHTS_FILE,
    ModelError,
    ModelSpec,
    load_network,
    load_spec,
    save_model,
)
from canet_ros.network import CANet
from canet_ros.simulation import write_scenes
from canet_ros.training.ablation import planned_runs, train_runs
from canet_ros.training.augmentation import augment, view_shapes
from canet_ros.training.config import TrainingConfig
from canet_ros.training.dataset import (
    IGNORED,
    ExtraData,
    find_labelled_images,
    find_split,
    parse_extra_data,
)
from canet_ros.training.initialization import initialize
from canet_ros.training.loss import class_weights, distillation_loss, segmentation_loss
from canet_ros.training.metrics import confusion_matrix, scores
from canet_ros.training.samples import AugmentedImages, EpochSampler
from canet_ros.training.setup import default_epochs
from canet_ros.training.teacher import load_teacher
from canet_ros.training.train import network_input, train

CLASSES = load_class_table("camvid")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", 8, first_seed=0, width=96, height=72)
    write_scenes(folder / "val", 2, first_seed=100, width=96, height=72)
    return folder


@pytest.fixture
def config(scenes: Path) -> TrainingConfig:
    return TrainingConfig(
        data=str(scenes),
        name="tiny",
        architecture="canet_lite",
        resolution=(96, 72),
        crop=(96, 64),
        epochs=3,
        batch_size=4,
        warmup_steps=2,
        val_every=1,
        precision="fp32",
        ema_decay=0.5,
        workers=0,
    )


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "history.jsonl").read_text().splitlines()]


def test_a_killed_run_resumes_exactly(scenes: Path, tmp_path: Path) -> None:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    arguments += " --epochs 3 --batch-size 4 --workers 0 --val-every 9 --out"
    command = [sys.executable, "-m", "canet_ros.cli", *arguments.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, timeout=120)
    killed = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
    while not (tmp_path / "killed" / "checkpoint.pt").is_file():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) < 3
    with open(tmp_path / "killed" / "history.jsonl", "a") as history:
        history.write(json.dumps({"epoch": 3, "loss": 9.9}) + "\n")  # an epoch without a checkpoint
    subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True, timeout=120)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    whole, again = ((tmp_path / run / "model" / WEIGHTS_FILE).read_bytes() for run in ("whole", "killed"))
    assert whole == again


def test_a_run_writes_its_curves(config: TrainingConfig, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    train(config, CLASSES, tmp_path)
    assert cv2.imread(str(tmp_path / "curve.png")) is not None
    assert len(losses(tmp_path)) == 3


def test_a_frozen_stem_keeps_its_weights_and_statistics(config: TrainingConfig, tmp_path: Path) -> None:
    start = CANet(len(CLASSES), architecture="canet_lite")
    save_model(tmp_path / "start", ModelSpec("start", CLASSES, "canet_lite"), start.half().float())
    frozen = replace(config, init=str(tmp_path / "start"), freeze_stem=True, epochs=1)
    train(frozen, CLASSES, tmp_path / "run")
    after = load_network(tmp_path / "run" / "model")[1].context_branch.backbone.state_dict()
    for name, before in start.context_branch.backbone.state_dict().items():
        in_stem = int(name.split(".")[1]) < 4
        assert torch.equal(after[name], before) == in_stem or name.endswith("num_batches_tracked"), name


def test_a_narrower_model_keeps_its_shape(config: TrainingConfig, tmp_path: Path) -> None:
    spec = ModelSpec("narrow", CLASSES, "canet_lite", hidden_channels={2: 48})
    save_model(tmp_path / "narrow", spec, spec.build_network())
    train(replace(config, init=str(tmp_path / "narrow"), epochs=1), CLASSES, tmp_path / "run")
    assert load_spec(tmp_path / "run" / "model").hidden_channels == {2: 48}
    other = replace(config, init=str(tmp_path / "narrow"), backbone="resnet18")
    with pytest.raises(ModelError, match="does not fit"):
        train(other, CLASSES, tmp_path / "other")


def test_a_student_learns_from_the_teacher(config: TrainingConfig, tmp_path: Path) -> None:
    train(replace(config, epochs=1), CLASSES, tmp_path / "teacher")
    taught = replace(config, epochs=1, teacher=str(tmp_path / "teacher" / "model"))
    train(taught, CLASSES, tmp_path / "student")
    assert losses(tmp_path / "student")[0] > losses(tmp_path / "teacher")[0]
    assert load_spec(tmp_path / "student" / "model").training["teacher"] == "model"
    logits = torch.randn(2, 3, 4, 4)
    assert float(distillation_loss(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_loss(logits, -logits)) > 0.1
    with pytest.raises(ValueError, match="classes of the teacher"):
        train(taught, load_class_table("cityscapes"), tmp_path / "other")


def test_pixels_are_normalised_by_each_model(config: TrainingConfig, tmp_path: Path) -> None:
    """Teacher, initial model and ablation use their own mean and standard deviation."""
    torch.manual_seed(0)
    spec = ModelSpec("bytes", CLASSES, "canet_lite", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    save_model(tmp_path / "bytes", spec, spec.build_network().half().float().eval())
    crops = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    taught = replace(config, teacher=str(tmp_path / "bytes"), init=str(tmp_path / "bytes"), epochs=1)
    pixels = (crops / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = load_network(tmp_path / "bytes")[1](pixels, 2)
    torch.testing.assert_close(load_teacher(taught, CLASSES, "cpu")(crops), expected, atol=1e-4, rtol=1e-4)
    image = crops[0].flip(0).permute(1, 2, 0).contiguous().numpy()
    seen = network_input(replace(spec, resolution=(96, 64)), image)
    torch.testing.assert_close(seen, pixels[:1], atol=1e-5, rtol=0)
    train(taught, CLASSES, tmp_path / "run")
    assert load_spec(tmp_path / "run" / "model").mean == spec.mean


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_precisions_learn_too(config: TrainingConfig, precision: str, tmp_path: Path) -> None:
    train(replace(config, precision=precision), CLASSES, tmp_path)
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_the_ablation_compares_networks_that_start_alike(scenes: Path, tmp_path: Path) -> None:
    starts = []
    for fusion in ("fca", "concat", "se", "cbam"):
        torch.manual_seed(3)
        starts.append(CANet(3, fusion=fusion, architecture="canet_lite").state_dict())
    common = set.intersection(*({name for name in start if name != "num"} for start in starts))
    assert any(name.startswith("fusion.merge") for name in common)
    assert "head.weight" in common
    assert all(torch.equal(start[name], starts[0][name]) for start in starts for name in common)

    drive = find_labelled_images(scenes / "train")[0].name
    arguments = f"ablate --data {scenes} --architecture canet_lite --resolution 96x72 --crop 96x64 --epochs 1"
    arguments += f" --batch-size 4 --workers 0 --without {drive} --fusions fca concat --seeds 0 1"
    arguments += f" --latency-resolution 128x64 --out {tmp_path}"
    assert main(arguments.split()) == 0
    results = json.loads((tmp_path / "ablation.json").read_text())
    assert [(run["fusion"], run["seed"]) for run in results["runs"]] == [
        ("fca", 0), ("concat", 0), ("fca", 1), ("concat", 1)
    ]  # fmt: skip
    fca, concat = results["summary"]
    mious = [run["left_out"]["miou"] for run in results["runs"] if run["fusion"] == "fca"]
    assert fca["left_out"]["miou_mean"] == pytest.approx(np.mean(mious))
    assert fca["left_out"]["miou_std"] == pytest.approx(np.std(mious, ddof=1))
    gains = [
        run["val"]["miou"] - other["val"]["miou"]
        for other, run in zip(results["runs"][::2], results["runs"][1::2])
    ]
    assert concat["val"]["gain_mean"] == pytest.approx(np.mean(gains))
    assert concat["val"]["gain_std"] == pytest.approx(np.std(gains, ddof=1))
    assert fca["val"]["gain_mean"] == 0
    assert fca["parameters"] > concat["parameters"]
    assert fca["latency_ms"] > 0
    assert all(0 <= spread["saturated"] <= 1 for spread in results["channel_attention"])
    assert cv2.imread(str(tmp_path / "attention.png")) is not None
    assert len((tmp_path / "ablation.md").read_text().splitlines()) == 4 + 1 + 2 + len(CLASSES)
    checkpoint = tmp_path / "fca-seed0" / "checkpoint.pt"
    trained_at = checkpoint.stat().st_mtime_ns
    runs = planned_runs(tmp_path, ["fca"], [0])
    train_runs(TrainingConfig(str(scenes), "", epochs=1), CLASSES, runs, "cpu")
    assert checkpoint.stat().st_mtime_ns == trained_at, "what is trained is not trained again"


def test_a_checkpoint_of_another_configuration_is_refused(config: TrainingConfig, tmp_path: Path) -> None:
    train(replace(config, epochs=1), CLASSES, tmp_path)
    with pytest.raises(ValueError, match="of another configuration"):
        train(config, CLASSES, tmp_path)


def test_train_and_evaluate_from_the_command_line(scenes: Path, tmp_path: Path) -> None:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    arguments += f" --epochs 1 --batch-size 4 --workers 0 --out {tmp_path / 'run'}"
    assert main(arguments.split()) == 0
    spec = load_spec(tmp_path / "run" / "model")
    assert (spec.name, spec.resolution) == ("tiny", (96, 72))
    assert str(scenes.parent) not in (tmp_path / "run" / "model" / "model.yaml").read_text()
    figures_file, sheet, confusion = (tmp_path / name for name in ("f.json", "worst.png", "confusion.png"))
    arguments = f"evaluate --model {tmp_path / 'run' / 'model'} --data {scenes} --split val --engine torch"
    arguments += f" --precision fp32 --json {figures_file} --worst {sheet} --confusion {confusion}"
    assert main(arguments.split()) == 0
    figures = json.loads(figures_file.read_text())
    assert 0 < figures["miou"] < 1
    assert 0 < figures["pixel_accuracy"] < 1
    assert set(figures["iou"]) == set(CLASSES.names)
    assert spec.metrics["val_miou"] == pytest.approx(figures["miou"], abs=0.02)
    assert cv2.imread(str(sheet)) is not None
    assert cv2.imread(str(confusion)) is not None


def test_a_start_from_a_model_takes_its_architecture_and_classes(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ClassTable(tuple(f"class {i}" for i in range(9)), ((1, 2, 3),) * 9)
    spec = ModelSpec("start", table, "canet_lite", fusion="se", head="bilinear")
    save_model(tmp_path / "start", spec, spec.build_network())
    arguments = (
        f"train --data {scenes} --name x --init {tmp_path / 'start'} --epochs 1 --batch-size 4 --workers 0"
    )
    arguments += " --resolution 96x72 --crop 96x64 --out"
    assert main([*arguments.split(), str(tmp_path / "run")]) == 0
    trained = load_spec(tmp_path / "run" / "model")
    assert trained.classes == table
    assert (trained.architecture, trained.fusion, trained.head) == ("canet_lite", "se", "bilinear")
    capsys.readouterr()
    assert main([*arguments.split(), str(tmp_path / "other"), "--architecture", "canet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not fit: its architecture is canet_lite, not canet" in line


def test_a_shipped_model_is_a_start_by_its_name() -> None:
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    arguments = parser.parse_args(
        ["--data", "x", "--name", "y", "--init", "canet_lite-mobilenet_v2-camvid", "--head", "bilinear"]
    )
    config, classes = training_config(arguments)
    assert (config.architecture, config.head) == ("canet_lite", "bilinear")
    assert (Path(config.init) / "model.yaml").is_file()
    assert classes == CLASSES


def test_failures_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--data", str(tmp_path), "--name", "x", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err.strip()
    assert "must contain the folders images/ and labels/" in error
    assert len(error.splitlines()) == 1


def test_holding_out_a_drive(scenes: Path) -> None:
    names = [image.name for image in find_labelled_images(scenes / "train")]
    prefix = names[0]
    assert prefix not in [
        picture.name for picture in find_labelled_images(scenes / "train", without=[prefix])
    ]
    assert [image.name for image in find_labelled_images(scenes / "train", only=[prefix])] == [prefix]
    with pytest.raises(ValueError, match="contains no image"):
        find_labelled_images(scenes / "train", only=["nothing"])


def test_without_val_the_end_of_each_recording_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "train" / folder).mkdir(parents=True)
        for name in [f"front_{i:03}" for i in range(10)] + [f"rear_{i:03}" for i in range(5)]:
            cv2.imwrite(str(tmp_path / "train" / folder / f"{name}.png"), np.zeros((4, 4), np.uint8))
    names = {split: [image.name for image in find_split(tmp_path, split)] for split in ("train", "val")}
    assert names["val"] == ["front_008", "front_009", "rear_004"]
    assert len(names["train"]) == 12
    assert not set(names["train"]) & set(names["val"])
    assert "3 of 15 images (front_008, front_009, rear_004)" in capsys.readouterr().err
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="images/ and labels/"):
        find_split(tmp_path, "val")


@pytest.mark.parametrize(
    ("images", "steps_range"), [(20, (600, 640)), (400, (1500, 1500)), (20_000, (60_000, 60_000))]
)
def test_the_schedule_fits_the_number_of_images(images: int, steps_range: tuple[int, int]) -> None:
    steps_per_epoch = images // 8
    steps = default_epochs(steps_per_epoch) * steps_per_epoch
    assert steps_range[0] <= steps <= steps_range[1]


def test_a_missing_label_is_named(scenes: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, 2, first_seed=0, width=96, height=72)
    missing = sorted((tmp_path / "labels").iterdir())[0]
    missing.unlink()
    with pytest.raises(ValueError, match=f"{missing.name} is missing"):
        find_labelled_images(tmp_path)


def test_sampler_draws_every_image_and_some_of_each_further_folder() -> None:
    sampler = EpochSampler(main=10, extra=[(20, 3), (4, 6)], batch_size=4, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.epoch = 1
    second = list(sampler)
    assert first == again
    assert len(first) == len(sampler) == 19
    positions = [sample.position for sample in first]
    assert sorted(positions)[:10] == list(range(10))
    assert sum(10 <= position < 30 for position in positions) == 3
    assert set(range(30, 34)) <= set(positions), (
        "all images of a small folder are drawn before any is repeated"
    )
    assert len({(sample.position, sample.repeat) for sample in first}) == 19
    assert [sample.batch for sample in first] == [count // 4 for count in range(19)]
    assert [sample.position for sample in second] != positions


def test_a_batch_has_one_shape_and_an_epoch_has_all_shapes(scenes: Path) -> None:
    shapes = view_shapes((96, 64), max_aspect=3.0)
    samples = AugmentedImages(find_labelled_images(scenes / "train"), len(CLASSES), shapes, seed=0)
    sampler = EpochSampler(main=8, extra=[(8, 40)], batch_size=4, seed=0)
    found: dict[int, set[tuple[int, int]]] = {}
    for sample in sampler:
        image, label = samples[sample._replace(position=sample.position % 8)]
        assert image.shape[1:] == label.shape
        found.setdefault(sample.batch, set()).add((label.shape[1], label.shape[0]))
    assert all(len(shapes_of_batch) == 1 for shapes_of_batch in found.values())
    assert set.union(*found.values()) == set(shapes)


@pytest.mark.parametrize("crop", [(480, 352), (640, 480), (256, 256), (240, 176), (96, 64)])
def test_views_have_the_same_area_and_increasing_width(crop: tuple[int, int]) -> None:
    shapes = view_shapes(crop, max_aspect=3.0)
    aspects = [width / height for width, height in shapes]
    assert shapes[0] == crop
    assert aspects == sorted(set(aspects))
    assert aspects[-1] == pytest.approx(3, rel=0.15)
    for width, height in shapes[1:]:
        assert width % 16 == height % 16 == 0
        assert width * height == pytest.approx(crop[0] * crop[1], rel=0.1)
    assert view_shapes(crop, max_aspect=0) == [crop]


@pytest.mark.parametrize(
    ("text", "folder", "share"),
    [
        ("streets", "streets", None),
        ("streets:0.5", "streets", 0.5),
        ("data:2026/streets:2", "data:2026/streets", 2.0),
        ("data:2026/streets", "data:2026/streets", None),
    ],
)
def test_further_folders_and_their_shares(text: str, folder: str, share: float | None) -> None:
    assert parse_extra_data(text) == ExtraData(folder, share)
    assert str(parse_extra_data(text)) == text


def test_an_existing_folder_takes_precedence_over_a_share(tmp_path: Path) -> None:
    (tmp_path / "drive:2").mkdir()
    assert parse_extra_data(f"{tmp_path}/drive:2") == ExtraData(f"{tmp_path}/drive:2")


@pytest.mark.parametrize("text", ["", ":0.5", "streets:0", "streets:-1", "streets:nan", "streets:inf"])
def test_an_invalid_share_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", "d", "--name", "x", "--out", "o", "--extra-data", "streets:1", text])
    assert stopped.value.code == 2
    assert "for example" in capsys.readouterr().err


def test_further_folders_are_used_and_recorded(scenes: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "towns", 3, first_seed=50, width=80, height=96)
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    arguments += f" --epochs 1 --batch-size 4 --workers 0 --extra-share 0.25 --out {tmp_path / 'run'}"
    arguments += f" --extra-data {tmp_path / 'towns'}:1 --extra-data {scenes / 'val'}"
    assert main(arguments.split()) == 0
    trained = load_spec(tmp_path / "run" / "model").training
    assert trained["extra_data"] == ["towns:1", "val"]
    assert trained["max_aspect"] == 3.0
    missing = arguments.replace(f"{tmp_path / 'towns'}:1", str(tmp_path / "nowhere"))
    assert main([*missing.split(), "--out", str(tmp_path / "other")]) == 1


def test_two_processes_share_every_batch_without_overlap() -> None:
    shares = [list(EpochSampler(10, [(20, 3)], 2, seed=1, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [len(share) for share in shares] == [6, 6]
    assert not {sample.position for sample in shares[0]} & {sample.position for sample in shares[1]}


def test_two_processes_train_one_model(config: TrainingConfig, scenes: Path, tmp_path: Path) -> None:
    arguments = f"train --data {scenes} --name tiny --architecture canet_lite --resolution 96x72 --crop 96x64"
    arguments += f" --epochs 2 --batch-size 4 --workers 0 --out {tmp_path}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "canet_ros.cli", *arguments.split()],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()].count("model") == 2
    assert len(losses(tmp_path)) == 2
    assert load_spec(tmp_path / "model").training["epochs"] == 2


def test_augmentation_moves_image_and_labels_together() -> None:
    label = np.zeros((90, 120), np.uint8)
    label[20:60, 30:90] = 1
    image = np.where(label[..., None] == 1, 230, 20).astype(np.uint8).repeat(3, axis=2)
    changed = 0
    for seed in range(20):
        view, labels = augment(image, label, (120, 90), np.random.default_rng(seed))
        assert view.shape == (90, 120, 3)
        assert set(np.unique(labels)) <= {0, 1, IGNORED}
        inside = cv2.erode((labels == 1).astype(np.uint8), np.ones((9, 9))) > 0
        outside = cv2.erode((labels == 0).astype(np.uint8), np.ones((9, 9))) > 0
        if inside.any() and outside.any():
            assert view[inside].mean() > view[outside].mean() + 30
        changed += not np.array_equal(labels, label)
    assert changed > 15


def test_a_wide_view_is_mirrored_at_the_scale_of_a_narrow_one() -> None:
    label = np.ones((90, 120), np.uint8)
    label[:30] = 0
    image = np.where(label[..., None] == 1, 230, 20).astype(np.uint8).repeat(3, axis=2)
    heights = {}
    for crop in ((120, 90), (176, 60)):
        views = [augment(image, label, crop, np.random.default_rng(seed))[1] for seed in range(40)]
        for labels in views:
            known = labels != IGNORED
            rows = known.mean(axis=1)
            assert ((rows < 0.2) | (rows > 0.8)).mean() > 0.7, (
                "only rows above and below the image are unknown"
            )
        heights[crop] = np.median([(labels != IGNORED).mean() for labels in views])
    assert heights[176, 60] == 1.0


def test_loss_is_low_for_correct_logits_and_ignores_unknown_pixels() -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    right = 8 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    weights = torch.ones(3)
    assert segmentation_loss(right, labels, weights, 0.5) < 0.02
    assert segmentation_loss(-right, labels, weights, 0.5) > 1
    unknown = labels.clone()
    unknown[:, :4] = IGNORED
    spoiled = right.clone()
    spoiled[:, :, :4] = torch.randn(2, 3, 4, 8) * 20
    assert segmentation_loss(spoiled, unknown, weights, 0.5) == pytest.approx(
        float(segmentation_loss(right, unknown, weights, 0.5)), abs=0.02
    )


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(np.array([900, 99, 1]), sharpness=1.02)
    assert weights[2] > weights[1] > weights[0]
    assert float(weights.mean()) == pytest.approx(1)


def test_scores_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 255], np.uint8)
    prediction = np.array([0, 1, 1, 1, 0], np.uint8)
    found = scores(confusion_matrix(labels, prediction, 3))
    assert found.iou[:2].tolist() == [1 / 2, 2 / 3]
    assert np.isnan(found.iou[2])
    assert found.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.pixel_accuracy == 3 / 4


def flat_name(name: str) -> str:
    """The inverse of the importer: the flat name (conv, bn, activation) of torchvision's nested one."""
    for nested, flat in (("conv.0.0.", "conv.0."), ("conv.0.1.", "conv.1.")):
        if nested in name:
            return name.replace(nested, flat)
    if name.startswith("features.1."):
        pairs = (("conv.1.", "conv.3."), ("conv.2.", "conv.4."))
    else:
        pairs = (
            ("conv.1.0.", "conv.3."),
            ("conv.1.1.", "conv.4."),
            ("conv.2.", "conv.6."),
            ("conv.3.", "conv.7."),
        )
    for nested, flat in pairs:
        if nested in name:
            return name.replace(nested, flat)
    return name


@pytest.mark.parametrize("layout", ["torchvision", "flat"])
def test_imagenet_files_of_the_backbone(layout: str, tmp_path: Path) -> None:
    source, network = CANet(3), CANet(3)
    state = source.context_branch.backbone.state_dict()
    state["features.18.0.weight"] = torch.zeros(1280, 320, 1, 1)
    path = tmp_path / "imagenet.pth"
    torch.save({flat_name(n) if layout == "flat" else n: t for n, t in state.items()}, path)
    left = initialize(network, str(path))
    assert not any(".backbone." in name for name in left)
    loaded = network.context_branch.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_imported_imagenet_files_start_a_training(backbone: str, tmp_path: Path) -> None:
    state = CANet(3, backbone).context_branch.backbone.state_dict()
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "imagenet.pth")
    imported = tmp_path / "imagenet" / "backbone.safetensors"
    arguments = ["import", str(tmp_path / "imagenet.pth"), "--backbone", backbone, "--out", str(imported)]
    assert main(arguments) == 0
    network = CANet(3, backbone)
    left = initialize(network, str(imported))
    assert not any(".backbone." in name for name in left)
    loaded = network.context_branch.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = CANet(3, "resnet18").context_branch.backbone.state_dict()
    del state["bn1.weight"], state["layer1.0.bn1.bias"]
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "part.pth")
    arguments = ["import", str(tmp_path / "part.pth"), "--backbone", "resnet18", "--out", "x.safetensors"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    for name in ("bn1.weight", "layer1.0.bn1.bias", "conv1.weight", "extra.weight"):
        assert f"\n  {name} is " in error
    assert error.count("\n  ") == 4


def test_init_from_another_architecture_is_refused(random_model: Path) -> None:
    with pytest.raises(ModelError, match=r"upsample_8\.deconv\.weight is missing"):
        initialize(CANet(4, architecture="canet"), str(random_model))


def test_init_files_are_not_executed(tmp_path: Path) -> None:
    torch.save({"features": Path}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match="contains more than tensors"):
        initialize(CANet(3), str(tmp_path / "code.pth"))


def test_init_from_a_model_of_other_classes_skips_the_head(random_model: Path) -> None:
    network = CANet(4, architecture="canet_lite")
    assert initialize(network, str(random_model)) == ["head.bias", "head.weight"]


def test_init_from_a_coarser_head_skips_the_head(random_model: Path) -> None:
    network = CANet(len(CLASSES), architecture="canet_lite", head="subpixel")
    assert initialize(network, str(random_model)) == ["head.bias", "head.weight"]


@pytest.mark.parametrize("head", ["bilinear", "subpixel"])
def test_a_model_stores_its_head(config: TrainingConfig, head: str, tmp_path: Path) -> None:
    train(replace(config, epochs=1, head=head), CLASSES, tmp_path)
    spec, network = load_network(tmp_path / "model")
    assert spec.head == head
    assert network.head.out_channels == len(CLASSES) * (4 if head == "subpixel" else 1)


def test_init_from_the_public_head_skips_the_head(tmp_path: Path) -> None:
    spec = ModelSpec("public", load_class_table("cityscapes"), head="transposed")
    save_model(tmp_path / "public", spec, spec.build_network())
    assert initialize(CANet(19), str(tmp_path / "public")) == ["head.bias", "head.weight"]
