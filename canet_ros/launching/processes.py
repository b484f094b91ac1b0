# SPDX-License-Identifier: Apache-2.0
"""What canet.launch.py starts: the node, RViz, the recorder. Needs launch_ros, which imports rclpy.

So the launch files import this where something is started, and not where their arguments are listed.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import launch.logging
import yaml
from launch import Action, LaunchContext
from launch.actions import EmitEvent, ExecuteProcess
from launch.event_handlers import OnShutdown
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from canet_ros.formats import parse_topic
from canet_ros.launching.arguments import (
    DEMO_ARGUMENTS,
    given_parameters,
    launch_arguments,
    misspelt_arguments,
    parameters_in_use,
)
from canet_ros.launching.camera_topics import CameraTopics, absolute_topic, camera_topics
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
from canet_ros.launching.parameter_files import read_parameter_file
from canet_ros.launching.parameter_spec import Value
from canet_ros.launching.recording import (
    apt_install_command,
    canet_record_command,
    installed_in,
    latched_topics,
    record_command,
    recorded_topics,
    recording_problem,
    ros2_bag_problem,
)
from canet_ros.launching.rviz_view import view_of_cameras
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

NODE_NAME = "canet"
log = launch.logging.get_logger("canet_ros")


@dataclass
class Companions:
    """What is started to look at the node, and whether it was told to end because the node has."""

    actions: list[Action] = field(default_factory=list)
    told_to_end: bool = False


def processes(context: LaunchContext, given: Mapping[str, str], folder: Path) -> list[Action]:
    """All that canet.launch.py starts.

    What can be wrong with the arguments is found before anything is started, since launch leaves behind what it has
    just started.

    Args:
        given: the arguments that somebody gave.
        folder: of our launch files; config/ is beside it.

    Raises:
        RuntimeError: nothing can be started like this; the message says why.
        ValueError: an argument does not fit.
    """
    arguments = dict(context.launch_configurations)
    for name, value in given.items():
        if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
            raise RuntimeError(
                f"{name} cannot be decoded with this locale's encoding: set LANG=C.UTF-8, and neither LC_ALL=C nor "
                "PYTHONUTF8=0"
            )
    alone = _launched_of_ours(sys.argv, folder)
    if alone:
        _warn_of_misspelt_arguments(arguments, alone)
    namespace = prefix_namespace(arguments.get("ros_namespace"), arguments["namespace"])
    namespace = make_namespace_absolute(namespace or "/")
    if namespace != "/":
        try:
            parse_topic(namespace)
        except ValueError:
            raise RuntimeError(
                f"namespace: expected letters, digits and underscores between slashes, got {arguments['namespace']!r}"
            ) from None
    node_name = f"{namespace.rstrip('/')}/{NODE_NAME}"
    params_file = _existing_file("params_file", arguments["params_file"])
    parameters = given_parameters(given, node_name, alone=params_file is None)
    environment = transport_environment(context.environment)
    transport = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    shows = _is_true(arguments["rviz"]) and _can_show(environment)
    records = _is_true(arguments["record"]) and _can_record(arguments, environment)
    rviz_config = _existing_file("rviz_config", arguments["rviz_config"])
    in_use = _parameters_in_use(given, params_file, node_name) if shows or records else {}
    try:
        scratch = Path(tempfile.mkdtemp(prefix="canet_launch_"))
    except OSError as error:
        raise RuntimeError(
            f"there is no folder for temporary files: {error}; set TMPDIR to one that can be written"
        ) from error
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)

    companions = Companions()
    node = _node(arguments, parameters, node_name, params_file, scratch, transport, companions, bool(alone))
    if not in_use:
        return [node]
    cameras = camera_topics(
        [absolute_topic(topic, node_name) for topic in in_use["image_topics"]], in_use["results_name"]
    )
    image_transport = in_use["image_transport"]
    if shows:
        config = rviz_config or _rviz_config(cameras, image_transport, folder.parent / "config", scratch)
        companions.actions.append(_rviz(config, arguments, transport))
    if records:
        companions.actions.append(
            _recorder(cameras, image_transport, arguments, scratch, transport, companions, environment)
        )
    return [node, *companions.actions]


def _launched_of_ours(command_line: Sequence[str], folder: Path) -> str:
    """The launch file that `ros2 launch` was told, if it is one of ours: no other's arguments can then be there."""
    ours = {path.name: path for path in folder.iterdir()}
    for package, word in itertools.pairwise(command_line):
        name = Path(word).name
        if name in ours and (package == "canet_ros" or Path(word).resolve() == ours[name].resolve()):
            return name
    return ""


def _warn_of_misspelt_arguments(arguments: Mapping[str, str], file: str) -> None:
    more = {
        "demo.launch.py": [argument.name for argument in DEMO_ARGUMENTS],
        "nav2_example.launch.py": ["costmap", "costmap_file"],
    }
    declared = [argument.name for argument in launch_arguments()]
    for problem in misspelt_arguments(arguments, [*declared, *more.get(file, ())]):
        log.warning(problem)


def _parameters_in_use(given: Mapping[str, str], params_file: Path | None, node_name: str) -> dict[str, Any]:
    try:
        return parameters_in_use(given, read_parameter_file(params_file) if params_file else "", node_name)
    except ValueError as error:
        raise RuntimeError(f"params_file: {params_file}: {error}" if params_file else str(error)) from error


def _can_show(environment: Mapping[str, str]) -> bool:
    if installed_in(environment, "rviz2"):
        return True
    log.warning(
        f"rviz2 is not installed, so that nothing is shown: {apt_install_command(environment, 'rviz2')}"
    )
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
    parameters: Mapping[str, Value],
    node_name: str,
    params_file: Path | None,
    scratch: Path,
    transport: Mapping[str, str],
    companions: Companions,
    alone: bool,
) -> Action:
    parameter_files = [params_file] if params_file else []
    if parameters:
        values = {
            name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()
        }
        given_file = scratch / "given_parameters.yaml"
        given_file.write_text(yaml.safe_dump({node_name: {"ros__parameters": values}}))
        parameter_files.append(given_file)  # the last file wins
    respawn = _is_true(arguments["respawn"])
    return Node(
        package="canet_ros",
        executable="segmentation_node",
        name=NODE_NAME,
        namespace=node_name.rpartition("/")[0] or "/",
        parameters=parameter_files,
        ros_arguments=["--log-level", f"{node_name.strip('/').replace('/', '.')}:={arguments['log_level']}"],
        additional_env={**transport, **ends_with_this_process()},
        output="screen",
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=None if respawn else functools.partial(_node_ended, companions, alone),
    )


def _node_ended(
    companions: Companions, alone: bool, event: ProcessExited, context: LaunchContext
) -> list[Action]:
    """RViz and recorder end with the node; a node that failed gives `ros2 launch` another exit status than 0.

    What other launch files started goes on until it is ended; the status is theirs then too.
    """
    failed = event.returncode != 0
    if context.is_shutdown or not (failed or companions.actions):
        return []
    problem = f"the segmentation node ended with status {event.returncode}"
    if companions.actions:
        companions.told_to_end = True
        problem += ", and RViz and the recorder with it"

    def fail(*_: object) -> None:
        raise RuntimeError(problem)  # an exception alone gives `ros2 launch` a status

    if failed and alone:
        fail()
    log.error(problem)
    if failed:
        # After all other handlers: those that follow one that raises are not called.
        context.register_event_handler(OnShutdown(on_shutdown=fail), append=True)
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
    without = ros2_bag_problem(environment)
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


def _rviz_config(
    cameras: tuple[CameraTopics, ...], image_transport: str, config: Path, scratch: Path
) -> Path:
    template = config / ("canet.rviz" if len(cameras) == 1 else "four_cameras.rviz")
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


def _is_true(text: str) -> bool:
    return text.lower() == "true"
