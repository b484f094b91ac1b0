#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Healthy is an active lifecycle node; CANET_NODE names it where it has another name or namespace.
set -eo pipefail
# shellcheck disable=SC1090
source "/opt/ros/${ROS_DISTRO}/setup.bash"
ros2 lifecycle get "${CANET_NODE:-/canet}" | grep --quiet '^active'
