# SPDX-License-Identifier: Apache-2.0
"""Command lines: parse, build the configuration, call, one error handler."""

import os

# gRPC's own log: what it says of a failure, a user reads as a sentence of ours. gRPC looks
# at the variable when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
