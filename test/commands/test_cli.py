# SPDX-License-Identifier: Apache-2.0
"""Every subcommand: exit status 2 for wrong usage, 1 and one line for failures, 130 for Ctrl-C; never a traceback."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_until

from canet_ros.cli import COMMANDS, DEBUG_VARIABLE, main
from canet_ros.launching.ending import Ended

# Required arguments of the subcommands.
COMPLETE = {
    "segment": ["absent.png", "--out", "out"],
    "train": ["--data", "absent", "--name", "x", "--out", "out"],
    "evaluate": ["--model", "absent", "--data", "absent"],
    "ablate": ["--data", "absent", "--out", "out"],
    "import": ["absent.pth", "--out", "out"],
    "segment-bag": ["absent", "out"],
    "record": ["out"],
    "extract": ["absent", "--masks", "out"],
    "labels": ["check", "absent"],
    "report": ["absent", "--out", "out.html"],
    "pick": ["absent", "--count", "1", "--out", "out"],
}
FAILURES = [
    "demo --seconds 0",
    "demo --model absent",
    "segment absent.png --out out",
    "segment text.txt --out out",
    "segment broken.png --out out",
    "train --data absent --name x --out out",
    "train --data empty --name x --out out --epochs 0",
    "evaluate --model absent --data empty",
    "ablate --data absent --out out",
    "import absent.pth --out out",
    "import text.txt --out out",
    "export --model absent",
    "export --calibrate empty",
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
@pytest.mark.parametrize(
    "wrong", [["--no-such-option"], ["--json"], ["--resolution", "4x4"], ["--engine", "x"]]
)
def test_wrong_usage_is_one_line_and_exits_with_2(
    command: str, wrong: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        sys.exit(main([command, *COMPLETE.get(command, []), *wrong]))
    (line,) = capsys.readouterr().err.strip().splitlines()
    # Some commands parse the size only when they run.
    assert caught.value.code == 2 or (wrong[0] == "--resolution" and caught.value.code == 1)
    assert line.startswith((f"canet {command}: ", f"canet {command} ", "canet: "))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("segment-bag empty out", "zstandard"),
        ("pick empty --count 1 --out out", "rosbags"),
        ("segment-bag --help", ""),
    ],
)
def test_a_missing_package_is_named_with_the_command_to_install_it(
    given: str,
    missing: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Imported by earlier tests.
    for name in [
        name for name in sys.modules if name.startswith(("canet_ros.bags", f"{missing or 'rosbags'}."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    for name in [missing] if missing else ["rosbags", "zstandard", "lz4"]:
        monkeypatch.setitem(sys.modules, name, None)
    if not missing:
        with pytest.raises(SystemExit) as caught:
            main(given.split())
        assert caught.value.code == 0
        return
    assert main(given.split()) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(f"no {missing}: pip install {missing}")


@pytest.mark.parametrize("given", [[], ["nonsense"], ["--nonsense"]])
def test_without_a_command(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_unexpected_errors(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"canet_ros.commands.{command.replace('-', '_')}")

    def run(error: BaseException) -> int:
        def fail(_: object) -> int:
            raise error

        monkeypatch.setattr(module, "run", fail)
        return main([command, *COMPLETE.get(command, [])])

    assert run(ZeroDivisionError("by\nzero")) == 1
    line = f"canet {command}: ZeroDivisionError: by (unexpected: set {DEBUG_VARIABLE}=1 for a traceback)\n"
    assert capsys.readouterr().err == line
    assert run(RuntimeError("what\nmore lines of C++")) == 1
    assert capsys.readouterr().err == f"canet {command}: what\n"
    assert run(MemoryError()) == 1
    assert capsys.readouterr().err == f"canet {command}: not enough memory\n"
    assert run(KeyboardInterrupt()) == 130
    assert run(Ended(signal.SIGTERM)) == 143
    assert capsys.readouterr().err == 2 * f"canet {command}: interrupted\n"
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError())


def test_doctor_ends_its_probes() -> None:
    """SIGTERM during the probes ends doctor and all of its processes."""
    doctor = subprocess.Popen([sys.executable, "-m", "canet_ros.cli", "doctor"], stdout=subprocess.DEVNULL)

    def probes() -> list[str]:
        children = Path(f"/proc/{doctor.pid}/task").glob("*/children")
        pids = [pid for file in children for pid in file.read_text().split()]
        return [pid for pid in pids if b"doctor.probes" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    pids = wait_until(probes, "the probes")
    doctor.terminate()
    assert doctor.wait(20) == -signal.SIGTERM
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end", 10)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("canet seg", {"segment", "segment-bag"}),
        ("canet models --js", {"--json"}),
        ("canet demo --engine to", {"torch"}),
    ],
)
def test_shell_completion_of_commands_options_and_choices(
    line: str, expected: set[str], tmp_path: Path
) -> None:
    pytest.importorskip("argcomplete")
    answer = tmp_path / "answer"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run([sys.executable, "-m", "canet_ros.cli"], env=environment, timeout=60, check=True)
    assert {word.strip() for word in answer.read_text().splitlines()} == expected


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, canet_ros; heavy = {'torch', 'cv2', 'numpy', 'onnx', 'openvino'}; "
        "assert not heavy & sys.modules.keys(); canet_ros.ClassTable; assert 'torch' not in sys.modules; "
        "from canet_ros import Segmenter; assert 'cv2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
