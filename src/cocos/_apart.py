# SPDX-License-Identifier: Apache-2.0
"""Work that grows with what a stranger sends: away from the event loop when it is much."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

SMALL: Final = 16 * 2**10
"""Bytes whose reading takes less than a millisecond; what honest peers send is mostly smaller."""

P = ParamSpec("P")
T = TypeVar("T")


async def apart(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``work`` returns: called here for small inputs, else in a thread.

    Args:
        size: Bytes that it works on.
        work: No coroutine; touches nothing that others change.
        args: Of the call.
        kwargs: Of the call.
    """
    if size <= SMALL:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
