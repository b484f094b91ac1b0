# SPDX-License-Identifier: Apache-2.0
"""What ``canet doctor`` looks at. Each probe is a process of its own, because what it looks at may be broken."""
