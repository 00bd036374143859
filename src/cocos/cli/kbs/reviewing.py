# SPDX-License-Identifier: Apache-2.0
"""Policies that are stored already are looked at when a service starts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import structlog

from cocos.errors import CocosError
from cocos.stores.policies import StoredPolicies

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def reviewing(policies: Iterable[StoredPolicies]) -> AsyncIterator[None]:
    """Log what is wrong with stored policies, beside whatever the block does."""
    task = asyncio.create_task(_review(list(policies)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _review(policies: list[StoredPolicies]) -> None:
    try:
        for each in policies:
            await each.review()
    except (CocosError, OSError) as error:
        _log.warning("policy.not-reviewed", exc_info=error)
