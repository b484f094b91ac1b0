# SPDX-License-Identifier: Apache-2.0
"""What ``canet benchmark`` measures: engines in this process, the node through DDS between processes."""
