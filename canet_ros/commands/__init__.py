# SPDX-License-Identifier: Apache-2.0
"""Subcommands of ``canet``, one file each: ``add_arguments(parser)`` and ``run(arguments) -> exit status``."""
