# SPDX-License-Identifier: Apache-2.0
"""The kinds of VM that a manager can start: one table."""

from cocos.errors import ConfigError
from cocos.manager.backends._base import Backend, Ending, Hardware, Vm
from cocos.manager.backends.local import LocalBackend

BACKENDS: dict[str, type[Backend]] = {
    "local": LocalBackend,
}

__all__ = ["BACKENDS", "Backend", "Ending", "Hardware", "Vm", "make_backend"]


def make_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BACKENDS:
        raise ConfigError(f"there is no backend {name!r}", hint=f"one of: {', '.join(BACKENDS)}")
    return BACKENDS[name]()
