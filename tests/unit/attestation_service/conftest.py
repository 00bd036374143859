# SPDX-License-Identifier: Apache-2.0
"""A store whose time is that of the test's own fixture ``clock``."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cocos._clock import Clock
from cocos.stores.base import Store
from cocos.stores.sql import SqlStore


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/store.sqlite3", clock=clock)
    yield opened
    await opened.close()
