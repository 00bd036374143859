# SPDX-License-Identifier: Apache-2.0
"""TOML from strangers, in time that grows with its length.

The parser of the standard library takes quadratic time for a dotted key: hours for one of
a megabyte. Such keys are refused before it sees them.
"""

import re
import tomllib
from typing import Any, Final

from cocos.errors import FormatError

MAX_KEY_PARTS: Final = 32

# Every alternative ends, at the latest with the line or the text: nothing is scanned twice.
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*",
    re.DOTALL,
)
_LONG_KEY: Final = re.compile(rf"(?:\.[^.,\n]*){{{MAX_KEY_PARTS}}}")


def loads(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        FormatError: not TOML, nested too deep, or a key of more than :data:`MAX_KEY_PARTS`.
    """
    if _LONG_KEY.search(_TEXT.sub('""', text)):
        raise FormatError(f"a key has more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of too many digits
        raise FormatError("this is not TOML") from error
