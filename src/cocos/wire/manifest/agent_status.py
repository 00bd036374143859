# SPDX-License-Identifier: Apache-2.0
"""What an agent says of itself on its VM's console, for whoever runs the VM: one line.

It is for people, through the manager: nothing that matters follows from it but what the
manager's lists say. It holds names, addresses and reasons, and no data.
"""

import re
from typing import Final, Literal

import msgspec

from cocos.errors import FormatError
from cocos.wire import json

MAX_TEXT: Final = 500
"""Characters of each text."""

_WORDS: Final = "cocos-agent: status "
# A VM's console has the journal's prefix, the lines of a local one have none.
_LINE: Final = re.compile(r"(?:\[[ 0-9.]+\] cocos-agent\[[0-9]+\]: )?" + _WORDS + r"(\{.*\})")


class AgentStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far an agent is.

    Attributes:
        problem: What keeps it from working now, or empty.
        computation: Id of the last computation that has ended, or empty.
        outcome: How that ended.
        reason: Why it failed.
    """

    problem: str = ""
    computation: str = ""
    outcome: Literal["", "completed", "failed"] = ""
    reason: str = ""

    def to_line(self) -> str:
        """Return the line, without its end."""
        texts = {name: _bounded(getattr(self, name)) for name in self.__struct_fields__}
        return _WORDS + json.encode(msgspec.structs.replace(self, **texts)).decode()

    @classmethod
    def of_line(cls, line: str) -> "AgentStatus | None":
        """Return what a line of a console says, None for any other line."""
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        try:
            status: AgentStatus = json.decode(found[1].encode(), cls, "an agent's status")
        except (FormatError, UnicodeEncodeError):
            return None
        texts = (getattr(status, name) for name in cls.__struct_fields__)
        return status if all(text == _bounded(text) for text in texts) else None


def _bounded(text: str) -> str:
    shown = "".join(each if each.isprintable() else " " for each in text)
    return shown if len(shown) <= MAX_TEXT else f"{shown[: MAX_TEXT - 1]}…"
