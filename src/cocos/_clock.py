# SPDX-License-Identifier: Apache-2.0
"""The only place that reads the system time; everything else is given a clock."""

import datetime as dt
from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], dt.datetime]
"""Returns the present time, timezone-aware, in UTC."""


def system_clock() -> dt.datetime:
    """Return the system's time, timezone-aware, in UTC."""
    return dt.datetime.now(dt.UTC)
