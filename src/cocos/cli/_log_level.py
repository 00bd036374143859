# SPDX-License-Identifier: Apache-2.0
"""Which logs are written; a module of its own, since every program asks and few need gRPC."""

import os

_RUST_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "off": "critical",
}


def level_of_logs(flag: str | None, configured: str = "info") -> str:
    """Return the level of logs: the flag's, else that of ``RUST_LOG``, else the file's.

    Of ``RUST_LOG`` the level that names no module counts: the modules are another program's.
    """
    for directive in os.environ.get("RUST_LOG", "").lower().split(","):
        if flag is None and directive.strip() in _RUST_LEVELS:
            return _RUST_LEVELS[directive.strip()]
    return flag or _RUST_LEVELS.get(configured.lower(), configured)
