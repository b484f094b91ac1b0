# SPDX-License-Identifier: Apache-2.0
"""Folders of masks and labels that people correct by hand: files are added, and existing ones are not overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canet_ros.files import write_image
from canet_ros.opencv import Pixels


class LabelFolder:
    """Writes images and labels under one name, in the layout of ``canet train`` or directly into the folder.

    A name that exists in any split is taken: an image that was moved from train/ to val/ is not written again.

    Args:
        folder: created with the first file.
        in_splits: use the layout of ``canet train``; new files go to ``train``.
        replace: replace existing files, also those that were corrected.

    Attributes:
        added, kept: numbers of names with a written file, and of those already complete.
    """

    def __init__(self, folder: Path, in_splits: bool = True, replace: bool = False) -> None:
        self.folder = folder
        self.added = self.kept = 0
        self._in_splits, self._replace = in_splits, replace
        patterns = ("*/images/*", "*/labels/*.png") if in_splits else ("*.png",)
        found = (path for pattern in patterns for path in folder.glob(pattern) if path.name[0] != ".")
        self._existing = {(path.parent.name if in_splits else "", path.stem): path for path in found}

    def write(self, name: str, images: Mapping[str, Pixels]) -> None:
        """Write ``<name>.png`` of each kind (``images``, ``labels``) that is missing; raises as ``write_image``."""
        new = self.folder / "train" if self._in_splits else self.folder
        paths = {kind: self._existing.get((kind, name), new / kind / f"{name}.png") for kind in images}
        wanted = {kind: path for kind, path in paths.items() if self._replace or not path.exists()}
        for kind, path in wanted.items():
            write_image(path, images[kind])
        self.added += bool(wanted)
        self.kept += not wanted

    def summary(self, what: str) -> str:
        """One line for the user."""
        kept = f", {self.kept} existing ones kept (--force-labels replaces them)" if self.kept else ""
        return f"{self.added} {what}{kept}: {self.folder}"
