# SPDX-License-Identifier: Apache-2.0
"""Processes of canet.launch.py: node, RViz and recorder. Needs launch_ros, which imports rclpy.

Launch files import this module only when they start something, so that ``--show-args`` stays fast.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import launch.logging
import yaml
from launch import Action, LaunchContext
from launch.actions import EmitEvent, ExecuteProcess, Shutdown
from launch.event_handlers import OnShutdown
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch_ros.actions import Node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from canet_ros.launching.arguments import (
    DEMO_ARGUMENTS,
    GivenParameters,
    given_parameters,
    launch_arguments,
    unknown_arguments,
)
from canet_ros.launching.ending import ending_with_parent, ends_with_this_process
from canet_ros.launching.parameter_spec import Value
from canet_ros.launching.recording import (
    apt_install_command,
    canet_record_command,
    folder_problem,
    is_installed,
    latched_topics,
    record_command,
    recorded_topics,
    ros2_bag_problem,
)
from canet_ros.launching.rviz_view import view_of_cameras
from canet_ros.launching.transport import PROFILE_VARIABLES, transport_environment

NODE_NAME = "canet"
# Statuses of a node that is not restarted: ended by a signal, could not start, wrong arguments.
_FINAL_STATUSES = (0, 1, 2)
# Arguments that other launch files of ours have besides those of canet.launch.py.
_MORE_ARGUMENTS = {
    "demo.launch.py": [argument.name for argument in DEMO_ARGUMENTS],
    "nav2_example.launch.py": ["costmap", "costmap_file"],
}
log = launch.logging.get_logger("canet_ros")


@dataclass
class Setup:
    """One start of canet.launch.py.

    Attributes:
        arguments: all launch configurations.
        node: fully qualified name of the node.
        params_file: the user's parameter file.
        transport: environment variables that select the transport profile.
        standalone: whether ``ros2 launch`` runs one of our launch files, not one that includes them.
        scratch: generated files, deleted when launch exits.
        companions: RViz and recorder.
        ending: whether the companions were asked to end because the node has ended.
    """

    arguments: Mapping[str, str]
    node: str
    params_file: Path | None
    transport: Mapping[str, str]
    standalone: bool
    scratch: tempfile.TemporaryDirectory[str] = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="canet_launch_")
    )
    companions: list[Action] = field(default_factory=list)
    ending: bool = False

    def is_true(self, argument: str) -> bool:
        return self.arguments[argument].lower() == "true"

    def write_yaml(self, name: str, content: object) -> Path:
        path = Path(self.scratch.name, name)
        path.write_text(yaml.safe_dump(content))
        return path


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
    file = _launched_file(folder)
    if file:
        known = [*(argument.name for argument in launch_arguments()), *_MORE_ARGUMENTS.get(file, ())]
        for warning in unknown_arguments(arguments, known):
            log.warning(warning)
    namespace = prefix_namespace(arguments.get("ros_namespace"), arguments["namespace"])
    node = f"{make_namespace_absolute(namespace or '/').rstrip('/')}/{NODE_NAME}"
    params_file = _existing_file("params_file", arguments["params_file"])
    parameters = given_parameters(given, params_file, node)
    rviz_config = _existing_file("rviz_config", arguments["rviz_config"])
    environment = transport_environment(context.environment)
    transport = {name: environment[name] for name in PROFILE_VARIABLES if name in environment}
    setup = Setup(arguments, node, params_file, transport, bool(file))
    rviz, record = _can_show(setup, environment), _can_record(setup)
    if rviz:
        setup.companions.append(_rviz(setup, rviz_config or _rviz_config(setup, parameters, folder)))
    if record:
        setup.companions.append(_recorder(setup, parameters, environment))
    return [_node(setup, parameters.values), *setup.companions]


def _launched_file(folder: Path) -> str:
    """Name of our launch file that ``ros2 launch`` runs; empty if it runs another one, which may include ours."""
    ours = {path.name: path for path in folder.iterdir()}
    for package, word in pairwise(sys.argv):
        name = Path(word).name
        if name in ours and (package == "canet_ros" or Path(word).resolve() == ours[name].resolve()):
            return name
    return ""


def _existing_file(argument: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(f"{argument}: {path} is not a file")
    return path


def _can_show(setup: Setup, environment: Mapping[str, str]) -> bool:
    if not setup.is_true("use_rviz"):
        return False
    installed = is_installed(environment, "rviz2")
    if not installed:
        log.warning(
            f"rviz2 is not installed; starting without it: {apt_install_command(environment, 'rviz2')}"
        )
    return installed


def _can_record(setup: Setup) -> bool:
    if not setup.is_true("record"):
        return False
    problem = folder_problem(_record_path(setup))
    if problem and setup.is_true("record_required"):
        raise RuntimeError(f"cannot record: {problem}. To start without recording: record_required:=false")
    if problem:
        log.error(f"cannot record: {problem}")
    return not problem


def _record_path(setup: Setup) -> str:
    path = setup.arguments["record_path"]
    return str(Path(path).expanduser().absolute()) if path else ""


def _node(setup: Setup, parameters: Mapping[str, Value]) -> Action:
    parameter_files = [setup.params_file] if setup.params_file else []
    if parameters:
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in parameters.items()}
        content = {setup.node: {"ros__parameters": values}}
        parameter_files.append(setup.write_yaml("given_parameters.yaml", content))  # the last file wins
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
        respawn=setup.is_true("use_respawn"),
        respawn_delay=2.0,
        on_exit=lambda event, context: _node_ended(setup, event, context),
    )


def _node_ended(setup: Setup, event: ProcessExited, context: LaunchContext) -> list[Action]:
    """End RViz and recorder; if the node failed, let ``ros2 launch`` exit with status 1.

    Processes of other launch files keep running; then the status applies when they end. With respawn, launch restarts
    the node unless it ended on request or could not start.
    """
    respawn = setup.is_true("use_respawn")
    if context.is_shutdown or (respawn and event.returncode not in _FINAL_STATUSES):
        return []
    setup.ending = True
    problem = f"the segmentation node ended with status {event.returncode}"
    ended = [*setup.companions, *([event.action] if respawn else [])]
    actions: list[Action] = [
        EmitEvent(event=ShutdownProcess(process_matcher=matches_action(action))) for action in ended
    ]
    if event.returncode == 0:
        log.info(problem)
        return actions

    def fail(*_: object) -> None:
        raise RuntimeError(problem)  # only an exception gives `ros2 launch` a status

    log.error(problem)
    # Appended, because the handlers after one that raises are not called.
    context.register_event_handler(OnShutdown(on_shutdown=fail), append=True)
    return [Shutdown(reason=problem)] if setup.standalone else actions


def _rviz_config(setup: Setup, parameters: GivenParameters, folder: Path) -> Path:
    name = "canet.rviz" if len(parameters.cameras) == 1 else "four_cameras.rviz"
    template = yaml.safe_load((folder.parent / "config" / name).read_text())
    return setup.write_yaml(name, view_of_cameras(template, parameters.cameras, parameters.image_transport))


def _rviz(setup: Setup, config: Path) -> Action:
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(config)],
        parameters=[{"use_sim_time": setup.is_true("use_sim_time")}],
        additional_env=setup.transport,
    )


def _recorder(setup: Setup, parameters: GivenParameters, environment: Mapping[str, str]) -> Action:
    topics = recorded_topics(parameters.cameras, parameters.image_transport)
    use_sim_time, path = setup.is_true("use_sim_time"), _record_path(setup)
    problem = ros2_bag_problem(environment)
    if problem:
        log.warning(f"recording with canet record: {problem}")
        command = canet_record_command(topics, path, use_sim_time)
    else:
        qos_file = setup.write_yaml("latched_topics.yaml", latched_topics(parameters.cameras))
        command = record_command(topics, qos_file, path, use_sim_time)
    return ExecuteProcess(
        cmd=ending_with_parent(command),
        name="recorder",
        additional_env=setup.transport,
        output="screen",
        sigterm_timeout="30",  # the recorder writes its cache after Ctrl-C
        on_exit=lambda event, context: _recorder_ended(setup, event, context),
    )


def _recorder_ended(setup: Setup, event: ProcessExited, context: LaunchContext) -> None:
    if context.is_shutdown or setup.ending:
        return
    problem = f"the recorder ended with status {event.returncode}: recording has stopped"
    if setup.is_true("record_required"):
        raise RuntimeError(f"{problem}. To continue without it: record_required:=false")  # ends the launch
    log.error(problem)
