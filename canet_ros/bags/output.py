# SPDX-License-Identifier: Apache-2.0
"""Writes a bag to ``OUT.partial`` and renames it when it is complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from canet_ros.bags.bag import BagError, Losses
from canet_ros.bags.mcap_reader import McapFile
from canet_ros.bags.mcap_writer import McapWriter
from canet_ros.bags.metadata import WrittenFile, write_metadata
from canet_ros.bags.reading import Bag
from canet_ros.files import write_json

_PROGRESS, _LOCK, _BAG, _WORK = "progress.json", "lock", "bag", "work"


class Output:
    """The bag being written, in ``OUT.partial`` until it is complete.

    Args:
        out: folder of the bag, or a single file if it ends in .mcap.
        resume, force: continue after the last finished file of a folder; replace existing output.

    Attributes:
        work: folder for temporary files.

    Raises:
        BagError: OUT exists, or another run is writing it.
    """

    def __init__(self, out: Path, resume: bool, force: bool) -> None:
        check_replaceable(out, resume, force)
        self._out = out
        self._resume, self._force = resume, force
        self.is_single_file = out.suffix == ".mcap"
        self.partial = partial_path(out)
        self.work = self.partial / _WORK
        self._finished: list[WrittenFile] = []
        self._writer: McapWriter | None = None
        with writing_to(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            if any(self.partial.iterdir()) and not (self.partial / _LOCK).exists():
                raise BagError(f"{self.partial}, where {out} is written, contains other files: move it away")
            self._lock = _locked(self.partial / _LOCK)
            shutil.rmtree(self.work, ignore_errors=True)

    def begin(self, identity: Mapping[str, Any], about_it: Mapping[str, Any]) -> dict[str, Any] | None:
        """Prepare the first file, or the one after the finished ones.

        Args:
            identity: everything the bag depends on; a run resumes only if it is equal.
            about_it: for the bag's metadata, see ``metadata.about``.

        Returns:
            The state stored with the last finished file; None: a new run.

        Raises:
            BagError: the unfinished run has another identity.
        """
        self._identity = json.loads(json.dumps(identity))
        self._about = about_it
        progress = _progress(self.partial) if self._resume else None
        if progress is not None:
            self._restore(progress)
            return dict(progress["state"])
        with writing_to(self.partial):
            (self.partial / _PROGRESS).unlink(missing_ok=True)
            shutil.rmtree(self.partial / _BAG, ignore_errors=True)
            (self.partial / _BAG).mkdir()
        return None

    def _restore(self, progress: Mapping[str, Any]) -> None:
        if progress["identity"] != self._identity:
            before, now = progress["identity"], self._identity
            differing = ", ".join(key for key in now if before.get(key) != now[key])
            raise BagError(f"{self.partial} was started with another {differing}: --force starts over")
        for number in range(progress["files"]):
            name = self._name(number)
            losses = Losses()
            file = McapFile(self.partial / _BAG / name, losses)
            file.close()
            if losses.problems:
                raise BagError(f"{self.partial / _BAG / name} is damaged: --force starts over")
            start_ns = min((block.start_ns for block in file.blocks), default=None)
            end_ns = max((block.end_ns for block in file.blocks), default=None)
            self._finished.append(WrittenFile(name, start_ns, end_ns, file.counts))

    def open_file(self) -> McapWriter:
        """Begin the next file."""
        self._writer = McapWriter(self.partial / _BAG / self._name(len(self._finished)))
        return self._writer

    def finish_file(self, writer: McapWriter, state: Mapping[str, Any], extras_of: Bag | None) -> None:
        """Complete the file; a resumed run gets ``state``.

        Args:
            extras_of: bag whose attachments and metadata records are copied to the first file.
        """
        extras = (extras_of.metadata, extras_of.attachments()) if extras_of and not self._finished else ()
        writer.close(self._about, *extras)
        self._finished.append(writer.written)
        progress = {"identity": self._identity, "files": len(self._finished), "state": state}
        write_json(self.partial / _PROGRESS, progress)

    def finish(self) -> None:
        """Complete the bag and rename it to OUT."""
        with writing_to(self.partial):
            whole = self.partial / _BAG
            if self.is_single_file:
                whole /= self._name(0)
            else:
                write_metadata(whole, self._finished, self._about)
            if self._force and (self._out.exists() or self._out.is_symlink()):
                os.rename(self._out, self.partial / "replaced")
            os.rename(whole, self._out)
            shutil.rmtree(self.partial, ignore_errors=True)
            self._lock.close()

    def suspend(self) -> None:
        """Keep a run that can be resumed; remove anything else."""
        if _progress(self.partial) is None:
            self.discard()
        else:
            self._close()
            shutil.rmtree(self.work, ignore_errors=True)

    def discard(self) -> None:
        self._close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
        self._lock.close()

    def _name(self, number: int) -> str:
        return self._out.name if self.is_single_file else f"{self._out.name}_{number}.mcap"


def partial_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _progress(partial: Path) -> dict[str, Any] | None:
    """Progress of a run that can be resumed: its ``identity``, number of finished ``files``, and ``state``."""
    try:
        progress = json.loads((partial / _PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(progress, dict) and {"identity", "files", "state"} <= progress.keys()
    return progress if known else None


def check_replaceable(out: Path, resume: bool, force: bool) -> None:
    """Raise BagError if ``out`` exists, or is unfinished, and the user asked neither to resume nor to replace it."""
    if force:
        return
    if out.exists() or out.is_symlink():
        raise BagError(f"{out} exists: give another name, or --force to replace it")
    if not resume and _progress(partial_path(out)) is not None:
        raise BagError(f"{partial_path(out)} is unfinished: --resume continues it, --force starts over")


def check_paths(source: Path, out: Path) -> None:
    """Create the folder above ``out``; raise BagError unless ``out`` can become a bag beside ``source``."""
    if not source.exists():
        raise BagError(f"{source} does not exist")
    whole, target = source.resolve(), out.resolve()
    if not out.name or out.name == "..":
        raise BagError(f"{out} is an existing folder: give the name of a new one")
    if target.is_relative_to(whole) or whole.is_relative_to(target):
        raise BagError(f"{out} is, contains or lies in the input {source}: give a name outside of it")
    if out.suffix in (".db3", ".bag", ".zstd"):
        raise BagError(f"{out}: bags are written as mcap; give a folder, or a name that ends in .mcap")
    with writing_to(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)


def input_files(source: Path) -> list[tuple[str, int, int]]:
    """Names, sizes in bytes and modification times in ns of the files of the input."""
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return [
        (file.name, status.st_size, status.st_mtime_ns)
        for file in files
        if file.is_file() and (status := file.stat())
    ]


@contextlib.contextmanager
def writing_to(
    path: Path, then: str = "free some space and use --resume; the input is untouched"
) -> Iterator[None]:
    """Turn OSError into a one-line BagError, which names the remedy ``then`` if the disk is full.

    Raises:
        BagError: the disk is full, or another system error.
    """
    try:
        yield
    except OSError as error:
        number = error.errno or getattr(error.__cause__, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BagError(f"no space left to write {path} ({error.strerror}): {then}") from error
        raise BagError(f"cannot write {error.filename or path}: {error.strerror or error}") from error


def _locked(path: Path) -> Any:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise BagError(f"another run is writing {path.parent}") from None
    return file
