# SPDX-License-Identifier: Apache-2.0
"""Where a bag is written: beside its final name, and under it only when it is whole."""

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

from canet_ros.bags.bag import BagError, Place
from canet_ros.bags.bag_folder import WrittenFile, bag_information, metadata_records, write_metadata
from canet_ros.bags.mcap_writer import McapWriter
from canet_ros.bags.reading import Bag

_PROGRESS, _LOCK, _BAG, _WORK = "progress.json", "lock", "bag", "work"


class Output:
    """The bag that is being made, in ``OUT.partial`` until it is whole.

    Args:
        out: folder of the bag, or a single file if it ends in .mcap.
        library: who writes, for the file's header.
        identity: what the bag depends on; a run goes on only with what was begun for the same.
        resume, force: whether to go on with an unfinished run, or to replace what is there.

    Attributes:
        state: what ``checkpoint`` stored last; None: the run starts anew.

    Raises:
        BagError: there is something of the name already, or what is there was begun for something else.
    """

    def __init__(
        self, out: Path, library: str, identity: Mapping[str, Any], resume: bool, force: bool
    ) -> None:
        self._out = out
        self._single = out.suffix == ".mcap"
        self._force = force
        self.partial = partial_of(out)
        self._identity = json.loads(json.dumps(identity))
        if (out.exists() or out.is_symlink()) and not force:
            raise BagError(f"{out} exists: give another name, or --force to replace it")
        with writing_to(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            if any(self.partial.iterdir()) and not (self.partial / _LOCK).exists():
                raise BagError(
                    f"{self.partial}, where {out} would be made, holds something else: move it away"
                )
            self._lock = _locked(self.partial / _LOCK)
            try:
                self._begin(library, resume)
            except BaseException:
                self._lock.close()
                if self._progress() is None:
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def _begin(self, library: str, resume: bool) -> None:
        progress = self._progress()
        if progress is not None and not (resume or self._force):
            raise BagError(
                f"{self.partial} holds an unfinished run: --resume goes on with it, --force starts anew"
            )
        if progress is not None and resume and progress["identity"] != self._identity:
            differing = ", ".join(_differences(progress["identity"], self._identity))
            raise BagError(f"{self.partial} was begun with another {differing}: --force starts anew")
        self.name = self._out.name if self._single else f"{self._out.name}_0.mcap"
        file = self.partial / _BAG / self.name
        self.state: dict[str, Any] | None = None
        if progress is None or not resume:
            (self.partial / _PROGRESS).unlink(missing_ok=True)
            for folder in (self.partial / _BAG, self.work):
                shutil.rmtree(folder, ignore_errors=True)
            (self.partial / _BAG).mkdir()
            self.writer = McapWriter(file, library)
        else:
            self.state = progress["state"]
            self.writer = McapWriter(file, library, int(progress["size"]))
            if self.writer.message_count != progress["messages"]:
                self.writer.abandon()
                raise BagError(f"{file} does not hold what was written to it: --force starts anew")

    @property
    def work(self) -> Path:
        """Folder for what is needed while the bag is made."""
        return self.partial / _WORK

    def checkpoint(self, place: Place, state: Mapping[str, Any]) -> None:
        """Store that everything up to the source's message at ``place`` is in the file."""
        progress = {
            "identity": self._identity,
            "size": self.writer.size,
            "messages": self.writer.message_count,
            "state": {**state, "place": list(place)},
        }
        temporary = self.partial / f"{_PROGRESS}.new"
        temporary.write_text(json.dumps(progress), encoding="utf-8")
        temporary.replace(self.partial / _PROGRESS)

    def finish(self, custom: Mapping[str, str], distribution: str, extras_of: Bag | None = None) -> None:
        """Complete the bag and give it its name.

        Args:
            extras_of: bag whose attachments and metadata records are taken over.
        """
        with writing_to(self.partial):
            self.writer.flush()
            information = bag_information([WrittenFile.of(self.name, self.writer)], custom, distribution)
            for pieces in extras_of.attachments() if extras_of else ():
                self.writer.attach(pieces)
            others = extras_of.metadata if extras_of else ()
            self.writer.close([*metadata_records(information, custom), *others])
            if not self._single:
                write_metadata(self.partial / _BAG, information)
            whole = self.partial / _BAG / self.name if self._single else self.partial / _BAG
            old = self.partial / "replaced"
            if self._force and (self._out.exists() or self._out.is_symlink()):
                os.rename(self._out, old)
            os.rename(whole, self._out)
            shutil.rmtree(self.partial, ignore_errors=True)
            self._lock.close()

    def give_up(self) -> None:
        """Leave what can be gone on with, and nothing else."""
        self.writer.abandon()
        self._lock.close()
        if self._progress() is None:
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            shutil.rmtree(self.work, ignore_errors=True)

    def discard(self) -> None:
        self.writer.abandon()
        self._lock.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _progress(self) -> dict[str, Any] | None:
        try:
            progress = json.loads((self.partial / _PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = isinstance(progress, dict) and {"identity", "size", "messages", "state"} <= progress.keys()
        return progress if known else None


def partial_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextlib.contextmanager
def writing_to(
    path: Path, then: str = "make room and go on with --resume; the input is untouched"
) -> Iterator[None]:
    """Say in one line what keeps us from writing, and ``then`` if it is the disk that is full.

    Raises:
        BagError: the disk is full, or anything else the system says.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in now if before.get(key) != now[key]] or ["purpose"]
