# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate models on folders of images and label images."""
