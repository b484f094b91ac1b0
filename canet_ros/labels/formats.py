# SPDX-License-Identifier: Apache-2.0
"""The formats of labelling tools, by the names that ``canet pick`` and ``canet labels`` take."""

from __future__ import annotations

from canet_ros.labels.coco import read_coco, write_coco
from canet_ros.labels.color_masks import read_cvat, read_masks, write_cvat, write_nothing
from canet_ros.labels.export import LabelFormat
from canet_ros.labels.label_studio import read_label_studio, write_label_studio
from canet_ros.labels.labelme import read_labelme, write_labelme

FORMATS = {
    "masks": LabelFormat("labels", write_nothing, read_masks, "images of class ids, for any editor of masks"),
    "cvat": LabelFormat(
        "cvat.zip",
        write_cvat,
        read_cvat,
        "in CVAT, upload it to a task with these images as Segmentation mask 1.1",
    ),
    "coco": LabelFormat("coco.json", write_coco, read_coco, "import it together with the folder images/"),
    "label-studio": LabelFormat(
        "label_studio.json",
        write_label_studio,
        read_label_studio,
        "import it into a project with the configuration label_studio.xml and this folder as local storage",
    ),
    "labelme": LabelFormat(
        "labelme",
        write_labelme,
        read_labelme,
        "open with: labelme images --output labelme --labels labelme.txt",
    ),
}
