# SPDX-License-Identifier: Apache-2.0
"""A model on disk: model.yaml, weights, class table, ONNX import, and its deployment graph for each engine."""
