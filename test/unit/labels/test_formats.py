# SPDX-License-Identifier: Apache-2.0
"""Labels survive the way to a labelling tool and back, and wrong exports are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from canet_ros.cli import main
from canet_ros.labels.export import image_name, open_export
from canet_ros.labels.formats import FORMATS
from canet_ros.labels.importing import import_labels
from canet_ros.labels.label_studio import decode_rle
from canet_ros.model.class_table import ClassTable, load_class_table
from canet_ros.opencv import read_image
from canet_ros.pipeline.segmenter import Segmenter
from canet_ros.simulation import write_scenes
from canet_ros.training.dataset import find_labelled_images

CAMVID = load_class_table("camvid")
TWO = ClassTable(("road", "car"), ((1, 2, 3), (4, 5, 6)))


def random_labels(folder: Path, classes: ClassTable) -> dict[str, np.ndarray]:
    """Two images whose labels have every class and unlabelled pixels, in blocks of 3x3 pixels."""
    rng = np.random.default_rng(1)
    values = np.array([*range(len(classes)), 255], np.uint8)
    labels = {}
    for name in ("front_001", "front_002"):
        blocks = rng.choice(values, (20, 30))
        labels[name] = np.kron(blocks, np.ones((3, 3), np.uint8))
        for kind, image in (("images", cv2.merge([labels[name]] * 3)), ("labels", labels[name])):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{name}.png"), image)
    return labels


@pytest.mark.parametrize("table", ["camvid", "cityscapes", "no colours"])
@pytest.mark.parametrize("tool", FORMATS)
def test_masks_survive_a_round_trip(tool: str, table: str, tmp_path: Path) -> None:
    if tool == "coco":
        pytest.importorskip("pycocotools")
    if table == "no colours":
        classes = ClassTable(tuple(f"class {i} <&>" for i in range(40)), ((0, 0, 0),) * 40)
    else:
        classes = load_class_table(table)
    labels = random_labels(tmp_path / "train", classes)
    path = tmp_path / "train" / FORMATS[tool].file
    FORMATS[tool].write(find_labelled_images(tmp_path / "train"), classes, path)
    if tool == "label-studio":  # a corrected task has annotations where the import had predictions
        path.write_text(path.read_text().replace('"predictions"', '"annotations"'))
    result = import_labels(path, tool, classes, tmp_path / "train" / "images", tmp_path / "out")
    assert result.imported == list(labels)
    for image in find_labelled_images(tmp_path / "out" / "train"):
        np.testing.assert_array_equal(image.read_ids(), labels[image.name])


def polygons(labels: np.ndarray, index: int) -> list[np.ndarray]:
    """Outlines of a class along the edges of its pixels, the way people click them."""
    big = cv2.resize((labels == index).astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(big, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour.reshape(-1, 2) + 0.5) / 4 for contour in contours if len(contour) > 2]


Shape = tuple[str, str, np.ndarray]  # name of the class, polygon or rectangle, corners in pixels


def read_shapes(tool: str, shapes: Sequence[Shape], width: int, height: int, folder: Path) -> np.ndarray:
    """The labels of an export with these shapes."""
    if tool == "labelme":
        entries = [{"label": name, "shape_type": kind, "points": c.tolist()} for name, kind, c in shapes]
        content = {"imagePath": "a.png", "imageHeight": height, "imageWidth": width, "shapes": entries}
    elif tool == "coco":
        annotations = [
            {
                "image_id": 1,
                "category_id": CAMVID.names.index(name),
                "segmentation": [corners.ravel().tolist()],
            }
            for name, _, corners in shapes
        ]
        categories = [{"id": index, "name": name} for index, name in enumerate(CAMVID.names)]
        images = [{"id": 1, "file_name": "a.png", "width": width, "height": height}]
        content = {"images": images, "categories": categories, "annotations": annotations}
    else:
        results = []
        for name, kind, corners in shapes:
            percent = corners / (width / 100, height / 100)
            (left, top), (right, bottom) = percent.min(axis=0), percent.max(axis=0)
            value = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            value = value if kind == "rectangle" else {"points": percent.tolist()}
            size = {"original_width": width, "original_height": height}
            results.append({"type": f"{kind}labels", "value": {**value, f"{kind}labels": [name]}, **size})
        content = [{"data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": results}]}]
    (folder / "export.json").write_text(json.dumps(content))
    with open_export(folder / "export.json") as export:
        ((name, labels),) = FORMATS[tool].read(export, CAMVID)
    assert name == "a"
    return labels


@pytest.mark.parametrize("tool", ["coco", "label-studio", "labelme"])
def test_polygons_are_within_a_pixel_at_borders(tool: str, tmp_path: Path) -> None:
    if tool == "coco":
        pytest.importorskip("pycocotools")
    write_scenes(tmp_path, 1, first_seed=7, width=640, height=480)
    truth = find_labelled_images(tmp_path)[0].read(len(CAMVID))[1]
    shapes = [
        (name, "polygon", outline)
        for index, name in enumerate(CAMVID.names)
        for outline in polygons(truth, index)
    ]
    # Larger outlines first: they have no holes, and what lies in them is drawn later.
    shapes.sort(key=lambda shape: -cv2.contourArea(shape[2].astype(np.float32)))
    assert (read_shapes(tool, shapes, 640, 480, tmp_path) == truth).mean() > 0.995


@pytest.mark.parametrize("tool", ["labelme", "label-studio"])
def test_rectangles_fill_the_pixels_that_they_cover(tool: str, tmp_path: Path) -> None:
    labels = read_shapes(tool, [("car", "rectangle", np.array([[36, 20], [6, 8]]))], 60, 40, tmp_path)
    assert (labels[8:20, 6:36] == CAMVID.names.index("car")).all()
    labels[7:21, 5:37] = 255
    assert (labels == 255).all()


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("front_001.png", "front_001"),
        ("/data/upload/3/1f2e3d4c-front_001.png", "front_001"),
        ("/data/local-files/?d=drive%2Fimages%2Ffront_001.png", "front_001"),
        ("s3://bucket/drive/front%20001.jpg", "front 001"),
        (r"..\images\front_001.png", "front_001"),
    ],
)
def test_images_are_named_without_folders_and_prefixes(address: str, name: str) -> None:
    assert image_name(address) == name


def test_label_studio_masks_are_read_with_runs_and_single_values() -> None:
    """Two repeated values in 3 bits of length, then two single values, of RGBA pixels 0 and 255."""
    bits = f"{8:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "1" + "00" + f"{3:03b}" + f"{0:08b}"  # four times 0: a pixel
    bits += "0" + "01" + f"{3:04b}" + f"{255:08b}" * 4  # four single values
    data = [int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8)]
    assert decode_rle(data, 1, 2).tolist() == [[False, True]]
    with pytest.raises(ValueError, match="end too early"):
        decode_rle(data[:-3], 1, 2)


def test_palette_and_colour_images_of_the_class_table(tmp_path: Path) -> None:
    labels = random_labels(tmp_path / "train", CAMVID)["front_001"]
    labels[labels == 255] = 0
    colors = cv2.LUT(cv2.merge([labels] * 3), np.resize(CAMVID.colors_rgb[:, ::-1], (256, 1, 3)))
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "front_001.png"), colors)
    images = tmp_path / "train" / "images"
    result = import_labels(tmp_path / "masks", "masks", CAMVID, images, tmp_path / "out")
    assert result.without_labels == ["front_002"]
    (image,) = find_labelled_images(tmp_path / "out" / "train")
    np.testing.assert_array_equal(image.read_ids(), labels)


@pytest.mark.parametrize(
    ("tool", "content", "named"),
    [
        ("coco", {"images": []}, "annotations"),
        ("coco", {"images": [{"id": 1}], "annotations": [], "categories": []}, "height"),
        ("labelme", {"imagePath": "front_001.png", "imageHeight": 60, "imageWidth": 90, "shapes": [
            {"label": "bus", "points": [[0, 0], [1, 1]], "shape_type": "rectangle"}]}, "'bus'"),
        ("labelme", {"imagePath": "front_001.png", "imageHeight": 30, "imageWidth": 40, "shapes": []}, "40x30"),
        ("labelme", {"imagePath": "other.png", "imageHeight": 60, "imageWidth": 90, "shapes": []}, "--images"),
        ("label-studio", {"data": 1}, "Label Studio"),
        ("cvat", {}, "Segmentation mask 1.1"),
        ("masks", {}, "--images"),
    ],
)  # fmt: skip
def test_wrong_exports_are_one_line_and_nothing_is_written(
    tool: str, content: object, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_labels(tmp_path / "train", CAMVID)
    (tmp_path / "export.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert main([
        "labels", "import", str(tmp_path / "export.json"), "--format", tool, "--images",
        str(tmp_path / "train" / "images"), "--out", str(out),
    ]) == 1  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not out.exists()


def test_an_id_outside_of_the_table_is_refused(tmp_path: Path) -> None:
    random_labels(tmp_path / "train", CAMVID)
    with pytest.raises(ValueError, match=r"ids \[2, 3, 4, 5, 6, 7, 8, 9, 10\]"):
        import_labels(tmp_path / "train", "masks", TWO, tmp_path / "train" / "images", tmp_path / "out")


def test_labelme_files_are_never_replaced(tmp_path: Path) -> None:
    random_labels(tmp_path / "train", CAMVID)
    corrected = tmp_path / "train" / "labelme" / "front_001.json"
    corrected.parent.mkdir()
    corrected.write_text("corrected")
    FORMATS["labelme"].write(find_labelled_images(tmp_path / "train"), CAMVID, corrected.parent)
    assert corrected.read_text() == "corrected"
    assert (corrected.parent / "front_002.json").exists()


def test_check_compares_labels_with_a_model(
    random_model: Path, segmenter: Segmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels that are the model's own masks agree; with two classes exchanged, these two are named."""
    write_scenes(tmp_path / "train", 3, first_seed=3, width=160, height=120)
    images = find_labelled_images(tmp_path / "train")
    masks = [segmenter(read_image(image.image)).mask for image in images]
    first, second = (int(index) for index in np.argsort(np.bincount(np.concatenate(masks).ravel()))[-2:])
    sheet = tmp_path / "sheet.png"
    options = ["--model", str(random_model), "--engine", "torch", "--precision", "fp32", "--device", "cpu"]
    for table, status in ((np.arange(256), 0), (exchanged(first, second), 1)):
        for image, mask in zip(images, masks):
            cv2.imwrite(str(image.label), table.astype(np.uint8)[mask])
        assert main(["labels", "check", str(tmp_path), "--out", str(sheet), "--force", *options]) == status
    names = segmenter.spec.classes.names
    error = capsys.readouterr().err
    assert f"{names[min(first, second)]} and {names[max(first, second)]} seem to be swapped" in error
    assert read_image(sheet).ndim == 3


def exchanged(first: int, second: int) -> np.ndarray:
    table = np.arange(256)
    table[[first, second]] = second, first
    return table
