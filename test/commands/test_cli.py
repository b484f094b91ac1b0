# SPDX-License-Identifier: Apache-2.0
"""Every subcommand: exit status 2 for wrong usage, 1 and one line for failures, 130 for Ctrl-C; never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from waiting import WAIT_S, wait_until

from canet_ros.cli import COMMANDS, DEBUG_VARIABLE, main
from canet_ros.launching.ending import Ended
from canet_ros.model.model_folder import available_models

FAILURES = [
    "demo --seconds 0",
    "demo --model absent",
    "segment absent.png --out out",
    "segment text.txt --out out",
    "segment broken.png --out out",
    "train --data absent --name x --out out",
    "train --data empty --name x --out out --epochs 0",
    "adapt absent --out out",
    "evaluate --model absent --data empty",
    "ablate --data absent --out out",
    "import absent.pth --out out",
    "import text.txt --out out",
    "export --model absent",
    "export --calibrate empty",
    "export --calibrate empty --precision fp32",
    "export --out text.txt/graph.onnx",
    "export --max-batch 0",
    "benchmark --rounds 0",
    "benchmark --json text.txt/figures.json",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    return tmp_path


@pytest.mark.parametrize("given", FAILURES)
def test_failures_are_one_line_and_exit_with_1(
    given: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if given.startswith("demo"):
        pytest.importorskip("rclpy")
    assert main(given.split()) == 1
    # OpenCV was imported before the command could silence it, and old versions print more: our line comes last.
    lines = capfd.readouterr().err.strip().splitlines()
    line = lines[-1]
    assert len(lines) == 1 or any("OpenCV" in other for other in lines[:-1])
    assert line.startswith(f"canet {given.split()[0]}: ")
    assert "unexpected" not in line


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_usage_is_one_line_and_exits_with_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--no-such-option"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert caught.value.code == 2
    assert line.startswith((f"canet {command}: ", f"canet {command} ", "canet: "))


@pytest.mark.parametrize("given", [[], ["nonsense"], ["--nonsense"]])
def test_without_a_command(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_unexpected_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(error: BaseException) -> int:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr("canet_ros.commands.models.run", fail)
        return main(["models"])

    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    assert run(ZeroDivisionError("by\nzero")) == 1
    line = f"canet models: ZeroDivisionError: by (unexpected: set {DEBUG_VARIABLE}=1 for a traceback)\n"
    assert capsys.readouterr().err == line
    assert run(RuntimeError("what\nmore lines of C++")) == 1
    assert capsys.readouterr().err == "canet models: what\n"
    assert run(MemoryError()) == 1
    assert capsys.readouterr().err == "canet models: not enough memory\n"
    assert run(KeyboardInterrupt()) == 130
    assert run(Ended(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == 2 * "canet models: interrupted\n"
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_doctor_ends_its_probes() -> None:
    """SIGTERM during the probes ends doctor and all of its processes."""
    doctor = subprocess.Popen([sys.executable, "-m", "canet_ros.cli", "doctor"], stdout=subprocess.DEVNULL)

    def probes() -> list[str]:
        children = Path(f"/proc/{doctor.pid}/task").glob("*/children")
        with contextlib.suppress(OSError):  # one has ended meanwhile
            pids = [pid for file in children for pid in file.read_text().split()]
            return [pid for pid in pids if b"doctor.probes" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return []

    pids = wait_until(probes, "the probes")
    doctor.terminate()
    assert doctor.wait(WAIT_S) == -signal.SIGTERM
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, canet_ros; heavy = {'torch', 'cv2', 'numpy', 'onnx', 'openvino'}; "
        "assert not heavy & sys.modules.keys(); canet_ros.ClassTable; assert 'torch' not in sys.modules; "
        "from canet_ros import Segmenter; assert 'cv2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_fallback_reasons_are_printed(
    folder: Path, own_cache: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    openvino = pytest.importorskip("openvino")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such ISA")

    monkeypatch.setattr(openvino.Core, "compile_model", fail)
    cv2.imwrite("image.png", np.zeros((120, 160, 3), np.uint8))
    assert (
        main(["segment", "image.png", "--model", str(random_model), "--out", "out", "--device", "cpu"]) == 0
    )
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not openvino" in line]
    assert line.startswith("runs on ")
    assert "not openvino on cpu: engine openvino does not start: RuntimeError: no such ISA" in line


BREAKS = {
    "a missing library": (
        "raise OSError('libx.so.1: cannot open')",
        "OSError: libx.so.1: cannot open",
    ),
    "an exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "a panic": ("class Panic(BaseException): pass\nraise Panic('rust')", "Panic: rust"),
    "a page of advice": (
        "try:\n    import nowhere_at_all\nexcept ImportError as e:\n    raise ImportError('\\n\\nREAD THIS\\n') from e",
        "ModuleNotFoundError: No module named 'nowhere_at_all'",
    ),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_package_that_cannot_be_imported_is_named(kind: str, tmp_path: Path) -> None:
    code, words = BREAKS[kind]
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "canet_ros.cli", "models"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("canet models: ")
    assert "numpy" in line
    assert words in line
