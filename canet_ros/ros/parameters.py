# SPDX-License-Identifier: Apache-2.0
"""Declares the node's parameters from the table and validates every change."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from canet_ros.formats import groups_text
from canet_ros.launching.camera_topics import camera_topics
from canet_ros.launching.nearest import did_you_mean
from canet_ros.launching.parameter_files import parameter_files, read_parameter_file, section_problem
from canet_ros.launching.parameter_spec import ParameterSpec, conflict
from canet_ros.launching.parameter_table import PARAMETERS
from canet_ros.model.class_table import ClassTable
from canet_ros.model.model_folder import (
    ModelError,
    ModelSpec,
    available_models,
    find_model,
    load_spec,
    shipped_model,
)
from canet_ros.pipeline.camera_transform import CameraTransform, read_camera_transforms
from canet_ros.pipeline.outputs import unknown_classes_problem
from canet_ros.ros.cloud_input import CloudTopic
from canet_ros.ros.rclpy_compat import given_parameters

_SPECS = {spec.name: spec for spec in PARAMETERS}
_READ_ONLY = {
    "class_names": "Of the loaded model, in the order of class ids; read-only",
    "class_colors": "Of the loaded model, in the order of class ids; read-only",
    "available_models": "Valid names for 'model', besides the path of a model folder; read-only",
}
# Parameters of every node; whether rclpy declares them depends on the distribution.
_OF_RCLPY = ("use_sim_time", "start_type_description_service", "enable_logger_service")


class LiveSettings(SimpleNamespace):
    """Snapshot of the parameters that may change between two frames, by name and in their units.

    Structured texts are parsed: ``groups`` is a mapping.
    """


class NodeParameters:
    """Declares the table's parameters on a node and validates changes.

    Attributes:
        lifecycle_state: ``unconfigured``, ``inactive``, ``active`` or ``finalized``; updated by the node.
        known_classes: names of the classes of the model in use.

    Raises:
        ValueError: values given at start are invalid; the message names them all.
    """

    def __init__(self, node: Node) -> None:
        self.lifecycle_state = "unconfigured"
        self.known_classes: tuple[str, ...] = ()
        self._node = node
        self._setting_read_only = False
        problems = []
        for spec in PARAMETERS:
            try:
                value = self._start_value(spec)
            except ValueError as error:
                problems.append(str(error))
            else:
                value = list(value) if isinstance(value, tuple) else value
                node.declare_parameter(spec.name, value, _descriptor(spec), ignore_override=True)
        if problems:
            raise ValueError(f"invalid parameters: {'; '.join(problems)}")
        self.check_together()
        for name, about in _READ_ONLY.items():
            descriptor = ParameterDescriptor(description=about, dynamic_typing=True)
            node.declare_parameter(name, [], descriptor, ignore_override=True)
        node.add_on_set_parameters_callback(self._check_change)
        self._set_read_only(
            class_names=[], class_colors=[], available_models=list(available_models()) or [""]
        )

    def undeclared(self, of_qos: bool) -> list[str]:
        """Names given at start that the node does not have: those of ``qos_overrides``, or all others."""
        return sorted(
            name
            for name in given_parameters(self._node)
            if name.startswith("qos_overrides.") is of_qos
            # A mapping in a parameter file becomes groups.<name>.
            and not name.startswith("groups.")
            and name not in _OF_RCLPY
            and not self._node.has_parameter(name)
        )

    def warn_about_unknown(self) -> tuple[str, ...]:
        """Log and return names given at start that the node does not have: the defaults apply instead."""
        logger, names = self._node.get_logger(), self.undeclared(of_qos=False)
        if names:
            known = list(self._node.get_parameters_by_prefix(""))
            logger.warning(
                "ignored parameters that this node does not have: "
                + "; ".join(f"{name}{did_you_mean(name, known)}" for name in names)
            )
        for file in parameter_files(sys.argv):
            try:
                problem = section_problem(read_parameter_file(file), self._node.get_fully_qualified_name())
            except ValueError as error:  # rcl accepts more files than we read
                problem = str(error)
            if problem:
                logger.warning(f"{file}: {problem}")
        return tuple(names)

    def value(self, name: str) -> Any:
        """Current value of a parameter; sequences as lists."""
        return self._node.get_parameter(name).value

    def live(self) -> LiveSettings:
        return LiveSettings(
            **{spec.name: spec.read(self.value(spec.name)) for spec in PARAMETERS if spec.live}
        )

    def check_together(self) -> None:
        """Raise ValueError if individually valid values conflict."""
        if problem := conflict({spec.name: self.value(spec.name) for spec in PARAMETERS}):
            raise ValueError(problem)

    def transforms(self, cameras: int) -> list[CameraTransform]:
        """Camera transforms, in the order of the cameras.

        Raises:
            ValueError: a list is too long, or a mask cannot be read.
        """
        lists = [list(self.value(name)) for name in ("ignore_masks", "regions", "rotations")]
        return read_camera_transforms(cameras, *lists)

    def clouds(self, cameras: int) -> list[CloudTopic | None]:
        """Source of points of each camera, in their order; None: none."""
        names = ("cloud_topics", "cloud_extrinsics", "depth_topics")
        lists = [[*self.value(name), *[""] * cameras][:cameras] for name in names]
        resolve = self._node.resolve_topic_name
        return [
            CloudTopic(resolve(cloud or depth), bool(depth), extrinsics) if cloud or depth else None
            for cloud, extrinsics, depth in zip(*lists)
        ]

    def check_groups(self, classes: ClassTable) -> None:
        """Raise ValueError if a group names a class that is not among these."""
        problem = unknown_classes_problem(self.live().groups, classes.names)
        if problem:
            raise ValueError(problem)

    def find_model(self, model: str) -> tuple[Path, ModelSpec]:
        """Folder and description of a value of ``model``.

        Raises:
            ModelError: the model is missing or invalid.
        """
        folder = find_model(model or shipped_model(self.value("architecture"), self.value("backbone")))
        return folder, load_spec(folder)

    def publish_classes(self, classes: ClassTable) -> None:
        """Set the model's classes as ``class_names`` and ``class_colors`` ("#rrggbb")."""
        colors = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in classes.colors]
        self._set_read_only(class_names=list(classes.names), class_colors=colors)

    def set_model(self, model: str) -> None:
        self._node.set_parameters([Parameter("model", Parameter.Type.STRING, model)])

    def _set_read_only(self, **values: list[str]) -> None:
        self._setting_read_only = True
        try:
            self._node.set_parameters(
                [Parameter(name, Parameter.Type.STRING_ARRAY, value) for name, value in values.items()]
            )
        finally:
            self._setting_read_only = False

    def _start_value(self, spec: ParameterSpec) -> Any:
        """The value given at start, or the default; raises ValueError if it is invalid."""
        given = {name: parameter.value for name, parameter in given_parameters(self._node).items()}
        if spec.name == "groups":  # a mapping in a parameter file becomes parameters groups.<name>
            named = {name.partition(".")[2]: v for name, v in given.items() if name.startswith("groups.")}
            given |= {"groups": groups_text(named)} if named else {}
        if spec.name not in given:
            return spec.default
        return self._checked(spec, given[spec.name])

    def _check_change(self, parameters: Sequence[Any]) -> SetParametersResult:
        problems = (self._problem(parameter.name, parameter.value) for parameter in parameters)
        reason = next(filter(None, problems), "")
        return SetParametersResult(successful=not reason, reason=reason)

    def _problem(self, name: str, value: Any) -> str:
        spec = _SPECS.get(name)
        if self._setting_read_only or is_unchanged(self._node, name, value):
            return ""
        if name in _READ_ONLY:
            return f"{name} is read-only"
        if spec is None:
            return ""
        try:
            self._checked(spec, value)
            if name == "model" and self.lifecycle_state == "active":
                self.check_groups(self.find_model(value)[1].classes)
        except (ModelError, ValueError) as error:
            return str(error)
        if name == "groups" and self.lifecycle_state == "active":
            return unknown_classes_problem(spec.read(value), self.known_classes) or ""
        return change_problem(spec, self.lifecycle_state, self._node.get_name())

    def _checked(self, spec: ParameterSpec, value: Any) -> Any:
        checked: Any = spec.check(value)
        if spec.name == "image_topics":
            try:
                camera_topics([self._node.resolve_topic_name(name) for name in checked], "segmentation")
            except Exception as error:  # rclpy raises several types for invalid topics
                raise ValueError(f"image_topics: {error}") from error
        return checked


def is_unchanged(node: Node, name: str, value: Any) -> bool:
    """Whether the parameter already has this value."""
    current = node.get_parameter(name).value if node.has_parameter(name) else None
    return current is not None and _comparable(current) == _comparable(value)


def _comparable(value: Any) -> Any:
    """Value for comparison: parameter arrays are ``array.array`` or lists, and True differs from 1."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else (type(value), value)


def changes(node: Node, parameters: Iterable[Any]) -> list[Any]:
    """The parameters with integers as doubles where declared, without unchanged read-only ones, which rclpy refuses."""
    return [
        _as_declared(parameter)
        for parameter in parameters
        if not is_unchanged(node, parameter.name, parameter.value)
        or not node.describe_parameter(parameter.name).read_only
    ]


def _as_declared(parameter: Any) -> Any:
    spec = _SPECS.get(parameter.name)
    if parameter.type_ != Parameter.Type.INTEGER or spec is None or not isinstance(spec.default, float):
        return parameter
    if not spec.minimum <= parameter.value <= spec.maximum:
        return parameter  # it is refused, with the value as given
    return Parameter(parameter.name, Parameter.Type.DOUBLE, float(parameter.value))


def change_problem(spec: ParameterSpec, lifecycle_state: str, node_name: str) -> str:
    """Why a parameter cannot change in this state, with the remedy; empty: it can."""
    if spec.at_start:
        return f"{spec.name} is read once, when the node starts: set it in the launch file or parameter file"
    steps = ["deactivate"] if lifecycle_state == "active" else []
    steps += ["clean up"] if spec.needs_cleanup and lifecycle_state != "unconfigured" else []
    if spec.live or not steps:
        return ""
    first = " and ".join(steps)
    return f"{spec.name} cannot change while the node is {lifecycle_state}: {first} {node_name} first"


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    # ParameterSpec.check validates the type, because rclpy's static typing refuses 5 for 5.0.
    descriptor = ParameterDescriptor(description=spec.description, dynamic_typing=True)
    constraints = [spec.expectation] if spec.choices else []
    when = f"live: {spec.when}" if spec.live else spec.when
    descriptor.additional_constraints = "; ".join([*constraints, when])
    if isinstance(spec.default, float):
        span = FloatingPointRange(from_value=float(spec.minimum), to_value=float(spec.maximum))
        descriptor.floating_point_range = [span]
    elif isinstance(spec.default, int) and not isinstance(spec.default, bool):
        span = IntegerRange(from_value=int(spec.minimum), to_value=int(spec.maximum))
        descriptor.integer_range = [span]
    return descriptor
