# SPDX-License-Identifier: Apache-2.0
"""The documentation as a site: Sphinx, because rosdoc2, which makes docs.ros.org, runs it on this folder as it is."""

import canet_ros

project = "canet_ros"
author = "The canet_ros authors"
copyright = "The canet_ros authors, Apache-2.0"
version = release = canet_ros.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"canet_ros {version}"
myst_heading_anchors = 3
# Names that a package and one of its modules share are one object.
suppress_warnings = ["ref.python", "misc.highlighting_failure"]
exclude_patterns = ["_build"]
autosummary_generate = True
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
