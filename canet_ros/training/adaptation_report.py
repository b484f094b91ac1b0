# SPDX-License-Identifier: Apache-2.0
"""Renders an adaptation as one self-contained HTML page: accuracy before and after, learning curve, changed images."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import Pixels, encode_image
from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay
from canet_ros.training.adaptation import BeforeAndAfter, ChangedImage

_ACCURACY = (
    "images",
    "count",
    *("mIoU before", "after", "change"),
    *("pixel accuracy before", "after", "change"),
)


def render_report(
    title: str,
    verdict: str,
    compared: Mapping[str, BeforeAndAfter],
    classes: ClassTable,
    settings: Mapping[str, Any],
    curve: Path,
) -> str:
    """The page as HTML.

    Args:
        compared: by the name of the image set; images are shown of the first.
        settings: shown as a table.
        curve: image of the learning curve; left out if the file does not exist.
    """
    accuracy = (
        (
            name,
            str(one.images),
            *_change(one.before.miou, one.after.miou),
            *_change(one.before.pixel_accuracy, one.after.pixel_accuracy),
        )
        for name, one in compared.items()
    )
    parts = {"Accuracy": _table(_ACCURACY, accuracy)}
    for name, one in compared.items():
        iou = (
            (c, *_change(before, after))
            for c, before, after in zip(classes.names, one.before.iou, one.after.iou)
        )
        parts[f"IoU by class, {name}"] = _table(("class", "before", "after", "change"), iou)
    if curve.is_file():
        parts["Learning curve"] = _image("png", curve.read_bytes())
    sheet = _sheet(next(iter(compared.values())).changed, classes)
    parts["Images that changed most"] = _image("jpeg", encode_image(sheet, ".jpg"))
    parts["Settings"] = _table(("", ""), ((name, str(value)) for name, value in settings.items()))
    body = "".join(f"<h2>{html.escape(heading)}</h2><div>{part}</div>\n" for heading, part in parts.items())
    page = (resources.files("canet_ros.training") / "adaptation_report.html").read_text(encoding="utf-8")
    for name, text in {"TITLE": html.escape(title), "VERDICT": html.escape(verdict), "BODY": body}.items():
        page = page.replace(f"@{name}@", text)
    return page


def _change(before: float, after: float) -> Sequence[str]:
    numbers = (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    return ["" if "nan" in number else number for number in numbers]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows]
    return f"<table><tr><th>{'</th><th>'.join(header)}</th></tr>{''.join(lines)}</table>"


def _image(kind: str, data: bytes) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" alt="">'


def _sheet(changed: Sequence[ChangedImage], classes: ClassTable) -> Pixels:
    table = color_lookup_table(classes, "bgr")
    # Classes that only the earlier model has are black, as pixels without a label.
    rows = [
        SheetRow(
            f"{one.share:.1%}  {one.name}",
            (
                one.image,
                colorize(one.before, table),
                overlay(one.image, one.after, table, 0.6),
                colorize(one.labels, table),
            ),
        )
        for one in changed
    ]
    columns = ("image", "before", "after", "labels")
    return contact_sheet(
        "Images that changed most", "share of the pixels whose class changed", columns, rows, classes
    )
