# SPDX-License-Identifier: Apache-2.0
"""Options of commands that segment without the node."""

from __future__ import annotations

from dataclasses import dataclass

from canet_ros.formats import parse_groups
from canet_ros.model.class_table import ClassTable
from canet_ros.model.palette import recolored
from canet_ros.pipeline.camera_transform import CameraTransform, read_camera_transforms
from canet_ros.pipeline.outputs import ProcessOptions, unknown_classes_problem


@dataclass(frozen=True)
class PipelineOptions:
    """The node's parameters of these names; lists have an entry per camera, and missing entries change nothing."""

    min_confidence: float = 0.0
    steady: bool = False
    groups: str = ""
    regions: tuple[str, ...] = ()
    rotations: tuple[int, ...] = ()
    ignore_masks: tuple[str, ...] = ()
    overlay_alpha: float = 0.5
    legend: bool = False
    palette: str = "dataset"

    def process_options(
        self, classes: ClassTable, at_network_size: bool = False, min_object_area: int = 1
    ) -> ProcessOptions:
        """Options for ``process`` with a model of these classes.

        Raises:
            ValueError: a group names a class that the model does not have.
        """
        groups = parse_groups(self.groups)
        problem = unknown_classes_problem(groups, classes.names)
        if problem:
            raise ValueError(problem)
        return ProcessOptions(
            recolored(classes, self.palette),
            self.legend,
            at_network_size,
            self.min_confidence,
            self.overlay_alpha,
            groups,
            min_object_area,
        )

    def camera_transforms(self, cameras: int) -> list[CameraTransform]:
        """One per camera; raises ValueError if a list has more entries, or an ignore mask cannot be read."""
        return read_camera_transforms(cameras, self.ignore_masks, self.regions, self.rotations)
