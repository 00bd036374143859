# SPDX-License-Identifier: Apache-2.0
"""The trace that a client says a request is a part of (W3C Trace Context §3.2)."""

import re
from typing import Final

from starlette.types import Scope

# A later version may have more at the end.
_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-.*")


def trace_of(scope: Scope) -> dict[str, str]:
    """Return the id of the trace as ``trace``, for logs; nothing if none is named."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            match = _PARENT.fullmatch(value)
            return {"trace": match[1].decode("ascii")} if match else {}
    return {}
