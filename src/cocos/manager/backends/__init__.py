# SPDX-License-Identifier: Apache-2.0
"""The kinds of VM that a manager can start: one table."""

from collections.abc import Callable

from cocos.errors import ConfigError
from cocos.manager.backends._base import Backend, Ending, Hardware, Vm
from cocos.manager.backends._qemu_image import Image, check_firmware
from cocos.manager.backends.local import LocalBackend
from cocos.manager.backends.qemu import QemuBackend
from cocos.manager.config import ManagerConfig

BACKENDS: dict[str, Callable[[ManagerConfig], Backend]] = {
    "qemu": QemuBackend,
    "local": lambda _: LocalBackend(),
}

__all__ = [
    "BACKENDS",
    "Backend",
    "Ending",
    "Hardware",
    "Image",
    "Vm",
    "check_firmware",
    "make_backend",
    "other_backends",
]


def make_backend(config: ManagerConfig) -> Backend:
    """Return the backend that the configuration names.

    Raises:
        ConfigError: there is none of that name.
    """
    if config.backend not in BACKENDS:
        raise ConfigError(
            f"there is no backend {config.backend!r}", hint=f"one of: {', '.join(BACKENDS)}"
        )
    return BACKENDS[config.backend](config)


def other_backends(config: ManagerConfig) -> dict[str, Backend]:
    """Return the other ones, which may have left VMs behind."""
    return {name: make(config) for name, make in BACKENDS.items() if name != config.backend}
