# SPDX-License-Identifier: Apache-2.0
"""The segmentation node, and on request RViz and a recording.

ros2 launch canet_ros canet.launch.py image_topics:="['/camera/image_raw']" resolution:=480x360
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from canet_ros.launching.arguments import given_parameters, launch_arguments, parameters_in_use
from canet_ros.launching.camera_topics import CameraTopics, camera_topics
from canet_ros.launching.recording import latched_topics, record_command, recorded_topics
from canet_ros.launching.rviz_view import view_of_cameras
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

CONFIG = Path(__file__).resolve().parent.parent / "config"
NODE_NAME = "canet"


def generate_launch_description() -> LaunchDescription:
    given: dict[str, str] = {}

    def remember_given(context: LaunchContext) -> None:
        names = [argument.name for argument in launch_arguments()]
        configurations = context.launch_configurations
        given.update({name: configurations[name] for name in names if name in configurations})

    declarations = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in launch_arguments()
    ]
    return LaunchDescription(
        [
            # A second include of this file in the same launch must not take our defaults for arguments it was given.
            PushLaunchConfigurations(),
            OpaqueFunction(function=remember_given),
            *declarations,
            OpaqueFunction(function=lambda context: _processes(context, given)),
            PopLaunchConfigurations(),
        ]
    )


def _processes(context: LaunchContext, given: Mapping[str, str]) -> list[Action]:
    arguments = dict(context.launch_configurations)
    namespace = prefix_namespace(arguments.get("ros_namespace"), arguments["namespace"])
    namespace = make_namespace_absolute(namespace or "/")
    node_name = f"{namespace.rstrip('/')}/{NODE_NAME}"
    params_file = _existing_file("params_file", arguments["params_file"])
    environment = transport_environment(context.environment)
    transport = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    scratch = Path(tempfile.mkdtemp(prefix="canet_launch_"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)

    processes = [_node(arguments, given, namespace, node_name, params_file, scratch, transport)]
    if not (_is_true(arguments["rviz"]) or _is_true(arguments["record"])):
        return processes
    in_use = parameters_in_use(given, params_file.read_text() if params_file else "", node_name)
    cameras = camera_topics(
        [_absolute(topic, namespace, node_name) for topic in in_use["image_topics"]], in_use["results_name"]
    )
    image_transport = in_use["image_transport"]
    if _is_true(arguments["rviz"]):
        config = _existing_file("rviz_config", arguments["rviz_config"])
        config = config or _rviz_config(cameras, image_transport, scratch)
        processes.append(_rviz(config, arguments, transport))
    if _is_true(arguments["record"]):
        processes.append(_recorder(cameras, image_transport, arguments, scratch, transport))
    return processes


def _node(
    arguments: Mapping[str, str],
    given: Mapping[str, str],
    namespace: str,
    node_name: str,
    params_file: Path | None,
    scratch: Path,
    transport: Mapping[str, str],
) -> Action:
    parameter_files = [params_file] if params_file else []
    parameters = given_parameters(given)
    if parameters:
        given_file = scratch / "given_parameters.yaml"
        given_file.write_text(yaml.safe_dump({node_name: {"ros__parameters": parameters}}))
        parameter_files.append(given_file)  # the last file wins
    logger = node_name.strip("/").replace("/", ".")
    return Node(
        package="canet_ros",
        executable="segmentation_node",
        name=NODE_NAME,
        namespace=namespace,
        parameters=parameter_files,
        ros_arguments=["--log-level", f"{logger}:={arguments['log_level']}"],
        additional_env=transport,
        output="screen",
        respawn=_is_true(arguments["respawn"]),
        respawn_delay=2.0,
    )


def _rviz(config: Path, arguments: Mapping[str, str], transport: Mapping[str, str]) -> Action:
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config)],
        parameters=[{"use_sim_time": _is_true(arguments["use_sim_time"])}],
        additional_env=transport,
    )


def _recorder(
    cameras: tuple[CameraTopics, ...],
    image_transport: str,
    arguments: Mapping[str, str],
    scratch: Path,
    transport: Mapping[str, str],
) -> Action:
    qos_file = scratch / "latched_topics.yaml"
    qos_file.write_text(yaml.safe_dump(latched_topics(cameras)))
    topics = recorded_topics(cameras, image_transport)
    return ExecuteProcess(
        cmd=record_command(topics, qos_file, arguments["record_path"], _is_true(arguments["use_sim_time"])),
        additional_env=transport,
        output="screen",
        # What is in the recorder's cache is still to be written after Ctrl-C.
        sigterm_timeout="30",
    )


def _rviz_config(cameras: tuple[CameraTopics, ...], image_transport: str, scratch: Path) -> Path:
    template = CONFIG / ("canet.rviz" if len(cameras) == 1 else "four_cameras.rviz")
    view = view_of_cameras(yaml.safe_load(template.read_text()), cameras, image_transport)
    path = scratch / template.name
    path.write_text(yaml.safe_dump(view))
    return path


def _existing_file(argument: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(f"{argument}: {path} is not a file")
    return path


def _absolute(topic: str, namespace: str, node_name: str) -> str:
    if topic.startswith("~"):
        return node_name + topic[1:]
    return topic if topic.startswith("/") else f"{namespace.rstrip('/')}/{topic}"


def _is_true(text: str) -> bool:
    return text.lower() == "true"
