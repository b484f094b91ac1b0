#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Healthy if the lifecycle node is active. CANET_NODE: its name, if it is not /canet.
set -eo pipefail
# shellcheck disable=SC1090
source "/opt/ros/${ROS_DISTRO}/setup.bash"
ros2 lifecycle get "${CANET_NODE:-/canet}" | grep --quiet '^active'
