# SPDX-License-Identifier: Apache-2.0
"""Renders an adaptation as one self-contained HTML page: accuracy before and after, learning curve, changed images."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from canet_ros.model.class_table import ClassTable
from canet_ros.opencv import Pixels, encode_image
from canet_ros.pipeline.contact_sheet import SheetRow, contact_sheet
from canet_ros.pipeline.visualization import color_lookup_table, colorize, overlay
from canet_ros.training.adaptation import BeforeAndAfter, ChangedImage


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
    values = {
        "TITLE": html.escape(title),
        "VERDICT": html.escape(verdict),
        "METRICS": "".join(_metrics_row(name, one) for name, one in compared.items()),
        "CLASSES": "".join(_class_table(name, one, classes) for name, one in compared.items()),
        "CURVE": _image("png", curve.read_bytes()) if curve.is_file() else "",
        "CHANGED": _image(
            "jpeg", encode_image(_sheet(next(iter(compared.values())).changed, classes), ".jpg")
        ),
        "SETTINGS": "".join(_row(name, str(value)) for name, value in settings.items()),
    }
    page = (resources.files("canet_ros.training") / "adaptation_report.html").read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"@{name}@", value)
    return page


def _metrics_row(name: str, one: BeforeAndAfter) -> str:
    before, after = one.before, one.after
    return _row(
        name,
        str(one.images),
        *_change(before.miou, after.miou),
        *_change(before.pixel_accuracy, after.pixel_accuracy),
    )


def _class_table(name: str, one: BeforeAndAfter, classes: ClassTable) -> str:
    rows = (
        _row(class_name, *_change(float(before), float(after)))
        for class_name, before, after in zip(classes.names, one.before.iou, one.after.iou)
    )
    return (
        f"<h2>IoU by class, {html.escape(name)}</h2><table><tr><th>class</th><th>before</th><th>after</th>"
        f"<th>change</th></tr>{''.join(rows)}</table>"
    )


def _change(before: float, after: float) -> Sequence[str]:
    numbers = (f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    return ["" if "nan" in number else number for number in numbers]


def _row(*cells: str) -> str:
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


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
