# SPDX-License-Identifier: Apache-2.0
"""Wire formats: JSON and protobuf types, without I/O."""
