# SPDX-License-Identifier: Apache-2.0
"""Conditions of a change (RFC 9110 §13): honoured, or the request is refused.

One that is passed over would overwrite what its sender wanted to keep.
"""

import re
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers

from cocos.errors import FormatError

IF_MATCH: Final = "If-Match"
IF_NONE_MATCH: Final = "If-None-Match"

_ANY: Final = "*"
_TAG: Final = re.compile(r'"([\x21\x23-\x7e]*)"')
_MOST: Final = 128  # characters; ours have 34


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be so for a change to be made.

    Attributes:
        new: There is nothing yet.
        tag: What is there has this entity tag.
    """

    new: bool = False
    tag: str | None = None


def condition(headers: Headers, honoured: tuple[str, ...]) -> Condition:
    """Return the condition of a request.

    Args:
        headers: Of the request; a field that stands in several lines is one list.
        honoured: Fields that this route knows.

    Raises:
        FormatError: another condition, or one that does not parse.
    """
    given = {name: ", ".join(headers.getlist(name)).strip() for name in (IF_MATCH, IF_NONE_MATCH)}
    present = [name for name in given if name in headers]
    for name in present:
        if name not in honoured:
            raise FormatError(f"{name} is not possible here", hint="leave it out")
    if len(present) > 1:
        raise FormatError(f"{IF_MATCH} and {IF_NONE_MATCH} exclude each other")
    if IF_NONE_MATCH in present:
        if given[IF_NONE_MATCH] != _ANY:
            raise FormatError(
                f"the only {IF_NONE_MATCH} that is possible is *, once", hint="what is there stays"
            )
        return Condition(new=True)
    if IF_MATCH in present:
        found = _TAG.fullmatch(given[IF_MATCH][:_MOST])
        if found is None:
            raise FormatError(f"{IF_MATCH} is not one strong entity tag", hint="as GET gave it")
        return Condition(tag=found[1])
    return Condition()
