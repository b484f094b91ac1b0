# SPDX-License-Identifier: Apache-2.0
"""Probes of ``canet doctor``. Each runs in a process of its own, because what it checks may be broken."""
