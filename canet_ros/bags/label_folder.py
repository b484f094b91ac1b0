# SPDX-License-Identifier: Apache-2.0
"""Folders of masks and labels that people correct by hand: files are added, and existing ones are not overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canet_ros.files import sha256, write_image
from canet_ros.opencv import Pixels

# In the format of sha256sum. A file whose hash is missing was changed since, or was not written by canet_ros.
HASHES_FILE = ".canet_written.sha256"


class LabelFolder:
    """Writes images and labels under one name, in the layout of ``canet train`` or directly into the folder.

    A name that exists in any split is taken: an image that was moved from train/ to val/ is not written again.

    Args:
        folder: created with the first file.
        in_splits: use the layout of ``canet train``; new files go to ``train``.
        force: replace existing files, except those that were changed since they were written.
        force_labels: replace those too.

    Attributes:
        added, kept: numbers of names with a written file, and of those already complete.
        changed: number of names with files that ``force`` did not replace because they were changed.
    """

    def __init__(
        self, folder: Path, in_splits: bool = True, force: bool = False, force_labels: bool = False
    ) -> None:
        self.folder = folder
        self.added = self.kept = self.changed = 0
        self._in_splits = in_splits
        self._force, self._force_labels = force, force_labels
        patterns = ("*/images/*", "*/labels/*.png") if in_splits else ("*.png",)
        found = (path for pattern in patterns for path in folder.glob(pattern) if path.name[0] != ".")
        self._existing = {(path.parent.name if in_splits else "", path.stem): path for path in found}
        self._hashes_file = folder / HASHES_FILE
        lines = self._hashes_file.read_text("utf-8").splitlines() if self._hashes_file.is_file() else []
        self._hashes = {line.partition(" ")[0] for line in lines}

    @property
    def names(self) -> int:
        """Number of names written or already present."""
        return self.added + self.kept + self.changed

    def write(self, name: str, images: Mapping[str, Pixels]) -> None:
        """Write ``<name>.png`` of each kind (``images``, ``labels``) that is missing; raises as ``write_image``."""
        written = changed = False
        for kind, image in images.items():
            path = self._existing.get((kind, name))
            if path is None:
                path = self.folder / (f"train/{kind}" if self._in_splits else "") / f"{name}.png"
            elif self._force and not self._force_labels and sha256(path) not in self._hashes:
                changed = True
                continue
            elif not (self._force or self._force_labels):
                continue
            self._write(path, image)
            written = True
        self.changed += changed
        self.added += written and not changed
        self.kept += not (written or changed)

    def summary(self, what: str) -> str:
        """One line for the user."""
        kept = f", {self.kept + self.changed} existing ones kept" if self.kept + self.changed else ""
        return f"{self.added} {what}{kept}: {self.folder}"

    def problem(self) -> str:
        """What ``force`` did not replace; empty: nothing."""
        if not self.changed:
            return ""
        return (
            f"{self.changed} labels in {self.folder} were changed since they were written and were not replaced: "
            "--force-labels replaces them"
        )

    def _write(self, path: Path, image: Pixels) -> None:
        write_image(path, image)
        digest = sha256(path)
        self._hashes.add(digest)
        with self._hashes_file.open("a", encoding="utf-8") as file:
            file.write(f"{digest}  {path.relative_to(self.folder)}\n")
