# SPDX-License-Identifier: Apache-2.0
"""Processes of canet.launch.py: node, RViz and recorder. Needs launch_ros, which imports rclpy.

Launch files import this module only when they start something, so that ``--show-args`` stays fast.
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
    parameters_in_use,
    unknown_arguments,
)
from canet_ros.launching.camera_topics import CameraTopics, absolute_topic, camera_topics
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
from canet_ros.launching.parameter_files import read_parameter_file
from canet_ros.launching.parameter_spec import Value
from canet_ros.launching.recording import (
    apt_install_command,
    canet_record_command,
    is_installed,
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


@dataclass(frozen=True)
class Setup:
    """Checked input of one start of canet.launch.py.

    Attributes:
        arguments: all launch configurations.
        node: fully qualified name of the node.
        params_file: the user's parameter file.
        environment: of all processes.
        scratch: folder for generated files, deleted when launch exits.
        standalone: whether ``ros2 launch`` runs one of our launch files, not one that includes them.
    """

    arguments: Mapping[str, str]
    node: str
    params_file: Path | None
    environment: Mapping[str, str]
    scratch: Path
    standalone: bool

    @property
    def transport(self) -> dict[str, str]:
        """Environment variables that select the transport profile."""
        return {name: self.environment[name] for name in PROFILE_VARIABLES if name in self.environment}

    def is_true(self, argument: str) -> bool:
        return self.arguments[argument].lower() == "true"

    def write_yaml(self, name: str, content: object) -> Path:
        path = self.scratch / name
        path.write_text(yaml.safe_dump(content))
        return path


@dataclass
class Companions:
    """RViz and recorder.

    Attributes:
        ending: whether they were asked to end because the node has ended.
    """

    actions: list[Action] = field(default_factory=list)
    ending: bool = False


def launch_actions(context: LaunchContext, given: Mapping[str, str], folder: Path) -> list[Action]:
    """Check the arguments and return everything that canet.launch.py starts.

    All checks come first, because launch leaves running what it has already started when a later action fails.

    Args:
        given: the arguments that were given.
        folder: of the launch files; config/ is beside it.

    Raises:
        RuntimeError: nothing can be started; the message gives the reason.
        ValueError: an argument is invalid.
    """
    arguments = dict(context.launch_configurations)
    _check_encoding(given)
    file = _launched_file(sys.argv, folder)
    if file:
        _warn_of_unknown_arguments(arguments, file)
    node = f"{_namespace(arguments).rstrip('/')}/{NODE_NAME}"
    params_file = _existing_file("params_file", arguments["params_file"])
    parameters = given_parameters(given, node, alone=params_file is None)
    rviz_config = _existing_file("rviz_config", arguments["rviz_config"])
    environment = transport_environment(context.environment)
    setup = Setup(arguments, node, params_file, environment, _scratch_folder(), bool(file))
    rviz, record = _can_show(setup), _can_record(setup)
    in_use = _parameters_in_use(setup, given) if rviz or record else {}

    companions = Companions()
    actions = [_node(setup, parameters, companions)]
    if in_use:
        images = [absolute_topic(topic, node) for topic in in_use["image_topics"]]
        cameras = camera_topics(images, in_use["results_name"])
        transport = in_use["image_transport"]
        if rviz:
            config = rviz_config or _rviz_config(setup, cameras, transport, folder.parent / "config")
            companions.actions.append(_rviz(setup, config))
        if record:
            companions.actions.append(_recorder(setup, cameras, transport, companions))
    return [*actions, *companions.actions]


def _check_encoding(given: Mapping[str, str]) -> None:
    for name, value in given.items():
        if any("\udc80" <= character <= "\udcff" for character in value):
            raise RuntimeError(
                f"cannot decode {name} with this locale's encoding: set LANG=C.UTF-8, and neither LC_ALL=C nor "
                "PYTHONUTF8=0"
            )


def _launched_file(command_line: Sequence[str], folder: Path) -> str:
    """Name of our launch file that ``ros2 launch`` runs; empty if it runs another one, which may include ours."""
    ours = {path.name: path for path in folder.iterdir()}
    for package, word in itertools.pairwise(command_line):
        name = Path(word).name
        if name in ours and (package == "canet_ros" or Path(word).resolve() == ours[name].resolve()):
            return name
    return ""


def _warn_of_unknown_arguments(arguments: Mapping[str, str], file: str) -> None:
    more = {
        "demo.launch.py": [argument.name for argument in DEMO_ARGUMENTS],
        "nav2_example.launch.py": ["costmap", "costmap_file"],
    }
    declared = [argument.name for argument in launch_arguments()]
    for warning in unknown_arguments(arguments, [*declared, *more.get(file, ())]):
        log.warning(warning)


def _namespace(arguments: Mapping[str, str]) -> str:
    namespace = prefix_namespace(arguments.get("ros_namespace"), arguments["namespace"])
    namespace = make_namespace_absolute(namespace or "/")
    try:
        if namespace != "/":
            parse_topic(namespace)
    except ValueError:
        raise RuntimeError(
            f"namespace: expected letters, digits and underscores between slashes, got {arguments['namespace']!r}"
        ) from None
    return str(namespace)


def _existing_file(argument: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(f"{argument}: {path} is not a file")
    return path


def _scratch_folder() -> Path:
    try:
        scratch = Path(tempfile.mkdtemp(prefix="canet_launch_"))
    except OSError as error:
        raise RuntimeError(
            f"cannot create a temporary folder: {error}; set TMPDIR to a writable one"
        ) from error
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def _can_show(setup: Setup) -> bool:
    if not setup.is_true("rviz") or is_installed(setup.environment, "rviz2"):
        return setup.is_true("rviz")
    log.warning(
        f"rviz2 is not installed; starting without it: {apt_install_command(setup.environment, 'rviz2')}"
    )
    return False


def _can_record(setup: Setup) -> bool:
    if not setup.is_true("record"):
        return False
    problem = recording_problem(_record_path(setup), setup.environment)
    if problem and setup.is_true("record_required"):
        raise RuntimeError(f"cannot record: {problem}. To start without recording: record_required:=false")
    if problem:
        log.error(f"cannot record: {problem}")
    return not problem


def _record_path(setup: Setup) -> str:
    path = setup.arguments["record_path"]
    return str(Path(path).expanduser().absolute()) if path else ""


def _parameters_in_use(setup: Setup, given: Mapping[str, str]) -> dict[str, Any]:
    file = setup.params_file
    try:
        return parameters_in_use(given, read_parameter_file(file) if file else "", setup.node)
    except ValueError as error:
        raise RuntimeError(f"params_file: {file}: {error}" if file else str(error)) from error


def _node(setup: Setup, parameters: Mapping[str, Value], companions: Companions) -> Action:
    parameter_files = [setup.params_file] if setup.params_file else []
    if parameters:
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in parameters.items()}
        content = {setup.node: {"ros__parameters": values}}
        parameter_files.append(setup.write_yaml("given_parameters.yaml", content))  # the last file wins
    respawn = setup.is_true("respawn")
    logger = setup.node.strip("/").replace("/", ".")
    return Node(
        package="canet_ros",
        executable="segmentation_node",
        name=NODE_NAME,
        namespace=setup.node.rpartition("/")[0] or "/",
        parameters=parameter_files,
        ros_arguments=["--log-level", f"{logger}:={setup.arguments['log_level']}"],
        additional_env={**setup.transport, **ends_with_this_process()},
        output="screen",
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=None if respawn else functools.partial(_node_ended, companions, setup.standalone),
    )


def _node_ended(
    companions: Companions, standalone: bool, event: ProcessExited, context: LaunchContext
) -> list[Action]:
    """End RViz and recorder; if the node failed, let ``ros2 launch`` exit with status 1.

    Processes of other launch files keep running; then the status applies when they end.
    """
    failed = event.returncode != 0
    if context.is_shutdown or not (failed or companions.actions):
        return []
    problem = f"the segmentation node ended with status {event.returncode}"
    if companions.actions:
        companions.ending = True
        problem += "; ending RViz and the recorder"

    def fail(*_: object) -> None:
        raise RuntimeError(problem)  # only an exception gives `ros2 launch` a status

    if failed and standalone:
        fail()
    log.error(problem)
    if failed:
        # Appended, because the handlers after one that raises are not called.
        context.register_event_handler(OnShutdown(on_shutdown=fail), append=True)
    return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(a))) for a in companions.actions]


def _rviz_config(setup: Setup, cameras: tuple[CameraTopics, ...], image_transport: str, config: Path) -> Path:
    template = config / ("canet.rviz" if len(cameras) == 1 else "four_cameras.rviz")
    view = view_of_cameras(yaml.safe_load(template.read_text()), cameras, image_transport)
    return setup.write_yaml(template.name, view)


def _rviz(setup: Setup, config: Path) -> Action:
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config)],
        parameters=[{"use_sim_time": setup.is_true("use_sim_time")}],
        additional_env=setup.transport,
    )


def _recorder(
    setup: Setup, cameras: tuple[CameraTopics, ...], image_transport: str, companions: Companions
) -> Action:
    topics = recorded_topics(cameras, image_transport)
    use_sim_time, path = setup.is_true("use_sim_time"), _record_path(setup)
    problem = ros2_bag_problem(setup.environment)
    if problem:
        log.warning(f"recording with canet record: {problem}")
        command = canet_record_command(topics, path, use_sim_time)
    else:
        qos_file = setup.write_yaml("latched_topics.yaml", latched_topics(cameras))
        command = record_command(topics, qos_file, path, use_sim_time)
    return ExecuteProcess(
        cmd=ending_with_parent(command),
        name="recorder",
        additional_env=setup.transport,
        output="screen",
        sigterm_timeout="30",  # the recorder writes its cache after Ctrl-C
        on_exit=functools.partial(_recorder_ended, setup.is_true("record_required"), companions),
    )


def _recorder_ended(
    required: bool, companions: Companions, event: ProcessExited, context: LaunchContext
) -> None:
    if context.is_shutdown or companions.ending:
        return
    problem = f"the recorder ended with status {event.returncode}: recording has stopped"
    if required:
        raise RuntimeError(f"{problem}. To continue without it: record_required:=false")  # ends the launch
    log.error(problem)
