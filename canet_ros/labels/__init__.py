# SPDX-License-Identifier: Apache-2.0
"""Exchange of labelled images with labelling tools, and checks of labels."""
