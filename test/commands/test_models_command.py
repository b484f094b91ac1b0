# SPDX-License-Identifier: Apache-2.0
"""``canet models`` lists what can be given by name, also beside a model that is broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from canet_ros.cli import main
from canet_ros.model.model_folder import available_models


def test_every_model_is_listed_with_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.json"
    assert main(["models", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert set(rows) == set(available_models())
    for name, row in rows.items():
        assert name in shown
        assert Path(row["folder"], "model.yaml").is_file()
        assert row["licence"] in shown
        assert row["size_mb"] == pytest.approx(
            sum(path.stat().st_size for path in Path(row["folder"]).iterdir()) / 1e6, abs=0.05
        )


def test_a_broken_model_does_not_hide_the_others(
    tmp_path: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "share" / "canet_ros" / "models"
    shutil.copytree(random_model, models / "good")
    (models / "broken").mkdir()
    (models / "broken" / "model.yaml").write_text("name: [")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "broken: " in shown
    assert str(models / "good") in shown
