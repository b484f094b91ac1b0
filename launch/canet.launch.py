# SPDX-License-Identifier: Apache-2.0
"""The segmentation node, and on request RViz and a recording.

ros2 launch canet_ros canet.launch.py image_topics:="['/camera/image_raw']" resolution:=480x360
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import launch.logging
import yaml
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from canet_ros.launching.arguments import (
    DEMO_ARGUMENTS,
    given_parameters,
    launch_arguments,
    misspelt_arguments,
    misspelt_parameters,
    parameters_in_use,
    read_parameter_file,
)
from canet_ros.launching.camera_topics import CameraTopics, camera_topics
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
from canet_ros.launching.recording import (
    apt_package,
    canet_record_command,
    installed_in,
    latched_topics,
    record_command,
    recorded_topics,
    recording_problem,
    without_ros2_bag,
)
from canet_ros.launching.rviz_view import view_of_cameras
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

LAUNCH_FOLDER = Path(__file__).resolve().parent
CONFIG = LAUNCH_FOLDER.parent / "config"
NODE_NAME = "canet"
log = launch.logging.get_logger("canet_ros")


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
    """All that can be wrong is found before anything is started: launch leaves behind what it has just started."""
    arguments = dict(context.launch_configurations)
    for name, value in given.items():
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            raise RuntimeError(
                f"{name} holds characters that are none in this environment's encoding: "
                "set LANG=C.UTF-8, and neither LC_ALL=C nor PYTHONUTF8=0"
            )
    _warn_of_misspelt_arguments(arguments, given)
    namespace = prefix_namespace(arguments.get("ros_namespace"), arguments["namespace"])
    namespace = make_namespace_absolute(namespace or "/")
    node_name = f"{namespace.rstrip('/')}/{NODE_NAME}"
    params_file = _existing_file("params_file", arguments["params_file"])
    in_use = _parameters_in_use(given, params_file, node_name)
    environment = transport_environment(context.environment)
    transport = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    shows = _is_true(arguments["rviz"]) and _can_show(environment)
    records = _is_true(arguments["record"]) and _can_record(arguments, environment)
    rviz_config = _existing_file("rviz_config", arguments["rviz_config"])
    try:
        scratch = Path(tempfile.mkdtemp(prefix="canet_launch_"))
    except OSError as error:
        raise RuntimeError(
            f"there is no folder for temporary files: {error}; set TMPDIR to one that can be written"
        ) from error
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)

    companions = Companions()
    node = _node(arguments, given, namespace, node_name, params_file, scratch, transport, companions)
    if not (shows or records):
        return [node]
    cameras = camera_topics(
        [_absolute(topic, namespace, node_name) for topic in in_use["image_topics"]], in_use["results_name"]
    )
    image_transport = in_use["image_transport"]
    if shows:
        config = rviz_config or _rviz_config(cameras, image_transport, scratch)
        companions.actions.append(_rviz(config, arguments, transport))
    if records:
        companions.actions.append(
            _recorder(cameras, image_transport, arguments, scratch, transport, companions, environment)
        )
    return [node, *companions.actions]


class Companions:
    """What is started to look at the node, and whether it was told to end because the node has."""

    def __init__(self) -> None:  # a dataclass cannot be made in a launch file, which is no module
        self.actions: list[Action] = []
        self.told_to_end = False


def _warn_of_misspelt_arguments(arguments: Mapping[str, str], given: Mapping[str, str]) -> None:
    file = _launched_of_ours(sys.argv)
    declared = [argument.name for argument in launch_arguments()]
    if file == "demo.launch.py":
        declared += [argument.name for argument in DEMO_ARGUMENTS]
    elif file == "nav2_example.launch.py":
        declared += ["costmap", "costmap_file"]
    others = {name: value for name, value in arguments.items() if name in given or name not in declared}
    for problem in misspelt_arguments(others, declared, ours_alone=bool(file)):
        log.warning(problem)


def _launched_of_ours(command_line: Sequence[str]) -> str:
    """The launch file that `ros2 launch` was told, if it is one of ours: no other's arguments can then be there."""
    ours = {path.name: path for path in LAUNCH_FOLDER.iterdir()}
    for package, word in itertools.pairwise(command_line):
        name = Path(word).name
        if name in ours and (package == "canet_ros" or Path(word).resolve() == ours[name].resolve()):
            return name
    return ""


def _parameters_in_use(given: Mapping[str, str], params_file: Path | None, node_name: str) -> dict[str, Any]:
    if params_file is None:
        return parameters_in_use(given, "", node_name)
    try:
        text = read_parameter_file(params_file)
        problems = misspelt_parameters(text, node_name)
    except ValueError as error:
        raise RuntimeError(f"params_file: {params_file}: {error}") from error
    for problem in problems:
        log.warning(f"{params_file}: {problem}")
    return parameters_in_use(given, text, node_name)


def _can_show(environment: Mapping[str, str]) -> bool:
    if installed_in(environment, "rviz2"):
        return True
    log.warning(f"rviz2 is not installed, so that nothing is shown: {apt_package(environment, 'rviz2')}")
    return False


def _can_record(arguments: Mapping[str, str], environment: Mapping[str, str]) -> bool:
    problem = recording_problem(_record_path(arguments), environment)
    if not problem:
        return True
    if _is_true(arguments["record_required"]):
        raise RuntimeError(f"nothing would be recorded: {problem}. To start without: record_required:=false")
    log.error(f"nothing is recorded: {problem}")
    return False


def _node(
    arguments: Mapping[str, str],
    given: Mapping[str, str],
    namespace: str,
    node_name: str,
    params_file: Path | None,
    scratch: Path,
    transport: Mapping[str, str],
    companions: Companions,
) -> Action:
    parameter_files = [params_file] if params_file else []
    parameters = given_parameters(given)
    if parameters:
        given_file = scratch / "given_parameters.yaml"
        given_file.write_text(yaml.safe_dump({node_name: {"ros__parameters": parameters}}))
        parameter_files.append(given_file)  # the last file wins
    logger = node_name.strip("/").replace("/", ".")
    respawn = _is_true(arguments["respawn"])
    return Node(
        package="canet_ros",
        executable="segmentation_node",
        name=NODE_NAME,
        namespace=namespace,
        parameters=parameter_files,
        ros_arguments=["--log-level", f"{logger}:={arguments['log_level']}"],
        additional_env={**transport, **ends_with_this_process()},
        output="screen",
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=None if respawn else functools.partial(_end, companions),
    )


def _end(companions: Companions, event: ProcessExited, context: LaunchContext) -> list[Action]:
    """With the node ends what looks at it; what other launch files started goes on."""
    if context.is_shutdown or not companions.actions:
        return []
    companions.told_to_end = True
    log.error(f"the node ended with status {event.returncode}, and RViz and the recorder with it")
    return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(a))) for a in companions.actions]


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
    companions: Companions,
    environment: Mapping[str, str],
) -> Action:
    qos_file = scratch / "latched_topics.yaml"
    qos_file.write_text(yaml.safe_dump(latched_topics(cameras)))
    topics = recorded_topics(cameras, image_transport)
    use_sim_time, path = _is_true(arguments["use_sim_time"]), _record_path(arguments)
    without = without_ros2_bag(environment)
    if without:
        log.warning(f"canet record takes the place of ros2 bag: {without}")
        command = canet_record_command(topics, path, use_sim_time)
    else:
        command = record_command(topics, qos_file, path, use_sim_time)
    return ExecuteProcess(
        cmd=ending_with_parent(command),
        name="recorder",
        additional_env=transport,
        output="screen",
        # What is in the recorder's cache is still to be written after Ctrl-C.
        sigterm_timeout="30",
        on_exit=functools.partial(_recorder_ended, _is_true(arguments["record_required"]), companions),
    )


def _recorder_ended(
    required: bool, companions: Companions, event: ProcessExited, context: LaunchContext
) -> None:
    if context.is_shutdown or companions.told_to_end:
        return
    problem = f"the recorder ended with status {event.returncode}: nothing is recorded any more"
    if required:
        raise RuntimeError(f"{problem}. To go on without it: record_required:=false")  # it ends the launch
    log.error(problem)


def _record_path(arguments: Mapping[str, str]) -> str:
    path = arguments["record_path"]
    return str(Path(path).expanduser().absolute()) if path else ""


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
