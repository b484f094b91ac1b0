# SPDX-License-Identifier: Apache-2.0
"""The shipped models do what their model.yaml says, on synthetic streets and, where it is at hand, on CamVid's val.

Not asserted here: how good they are on a road nobody has drawn or labelled.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from canet_ros.model.model_folder import available_models, find_model, load_spec, shipped_model
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import write_scenes
from canet_ros.training.dataset import LabelledImage, find_labelled_images
from canet_ros.training.evaluate import evaluate
from canet_ros.training.metrics import scores

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


@pytest.fixture(scope="module")
def synthetic_streets(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledImage]:
    folder = tmp_path_factory.mktemp("streets")
    write_scenes(folder, 12, first_seed=95000)
    return find_labelled_images(folder)


def miou(model: str, images: list[LabelledImage]) -> float:
    return scores(evaluate(Segmenter.load(model, "cpu"), images).confusion).miou


@pytest.mark.parametrize("model", available_models())
def test_a_shipped_model_says_what_it_is(model: str) -> None:
    spec = load_spec(find_model(model))
    assert spec.name == model == f"{spec.architecture}-{spec.backbone}-camvid"
    assert shipped_model(spec.architecture, spec.backbone) == model
    assert "CC BY-NC 4.0" in spec.training["data_licence"]
    assert spec.metrics["val_iou"].keys() == set(spec.classes.names)


@pytest.mark.parametrize("model", available_models())
def test_figure_on_synthetic_streets(model: str, synthetic_streets: list[LabelledImage]) -> None:
    stated = load_spec(find_model(model)).metrics["synthetic_miou"]
    assert miou(model, synthetic_streets) == pytest.approx(stated, abs=0.06)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not at hand")
@pytest.mark.parametrize("model", available_models())
def test_figure_on_camvid_val(model: str) -> None:
    stated = load_spec(find_model(model)).metrics["val_miou"]
    assert miou(model, find_labelled_images(CAMVID / "val")) == pytest.approx(stated, abs=0.003)
