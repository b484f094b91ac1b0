# SPDX-License-Identifier: Apache-2.0
"""The main job on this machine without a robot: a street camera, a recorder, and the processes between them."""
