# SPDX-License-Identifier: Apache-2.0
"""A disk that is full, read-only or broken: one condition with one code, whoever meets it."""

import errno
import os
import re
from typing import Final

from cocos.errors import CocosError, ConfigError, StorageError

_STORAGE: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
        *(errno.EFBIG, errno.ESTALE, errno.EUCLEAN, errno.EREMOTEIO),
    }
)

_SAYS_STORAGE: Final = re.compile(
    "|".join(os.strerror(number) for number in sorted(_STORAGE)), re.IGNORECASE
)
"""As the C library says it, and Go's in small letters."""


def disk_error(error: OSError, doing: str, otherwise: type[CocosError] = ConfigError) -> CocosError:
    """Return what to raise for a file that cannot be used.

    Args:
        error: What the system says.
        doing: What was tried: "cannot write /x".
        otherwise: What it is where the disk is not to blame: no such folder, no permission.

    Returns:
        :class:`StorageError` if the disk is full, read-only or broken; whatever was being done,
        that is one condition with one code.
    """
    kind = StorageError if error.errno in _STORAGE else otherwise
    return kind(f"{doing}: {error.strerror or error}")


def translated(error: Exception) -> CocosError | None:
    """Return an exception at the edge of a program as one of ours; None: a fault of ours.

    A disk that is full shows wherever something is written.
    """
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return disk_error(error, f"cannot use {error.filename or 'the disk'}")
    return error if isinstance(error, CocosError) else None


def says_storage(words: str) -> bool:
    """Whether the last words of a program are that its disk is full, read-only or broken."""
    return _SAYS_STORAGE.search(words) is not None
