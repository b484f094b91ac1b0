# SPDX-License-Identifier: Apache-2.0
"""The segmentation node: camera messages in, frames, masks, messages out."""
