# SPDX-License-Identifier: Apache-2.0
"""gRPC and ASGI set-up that all servers share."""
