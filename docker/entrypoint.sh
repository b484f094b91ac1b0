#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the command with ROS and the workspace sourced.
set -eo pipefail
# shellcheck disable=SC1090
source "/opt/ros/${ROS_DISTRO}/setup.bash"
# shellcheck disable=SC1091
source /ws/install/setup.bash
exec "$@"
