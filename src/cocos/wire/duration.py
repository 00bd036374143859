# SPDX-License-Identifier: Apache-2.0
"""Durations as Go writes them: ``90s``, ``1h30m``, ``1.5s``."""

import datetime as dt
import re
from typing import Final

from cocos.errors import FormatError

LONGEST: Final = dt.timedelta(days=3650)

# Go's time.ParseDuration, in nanoseconds.
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5
    "μs": 10**3,  # U+03BC
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str, what: str) -> dt.timedelta:
    """Parse a duration.

    Args:
        text: What somebody wrote.
        what: Whose it is, for the message: "the time to live".

    Raises:
        FormatError: not a duration, not positive, or longer than :data:`LONGEST`.
    """
    hint = "write a duration such as 90s, 45m or 1h30m"
    nanoseconds = 0
    position = 0
    while part := _PART.match(text, position):
        whole, _, fraction = part[1].partition(".")
        if len(part[1]) > 30:  # noqa: PLR2004 - far beyond any duration; bounds the arithmetic
            raise FormatError(f"{what} is too long", hint=hint)
        unit = _UNITS[part[2]]
        nanoseconds += int(whole or "0") * unit
        nanoseconds += int(fraction or "0") * unit // 10 ** len(fraction)
        position = part.end()
    if not text or position != len(text):
        raise FormatError(f"{what} {text[:40]!r} is no duration", hint=hint)
    if nanoseconds < 1000:  # noqa: PLR2004 - the smallest step of a timedelta
        raise FormatError(f"{what} {text!r} is not positive", hint=hint)
    if nanoseconds > LONGEST / dt.timedelta(microseconds=1) * 1000:
        raise FormatError(f"{what} {text!r} is over {LONGEST.days} days", hint=hint)
    return dt.timedelta(microseconds=nanoseconds // 1000)
