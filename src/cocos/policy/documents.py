# SPDX-License-Identifier: Apache-2.0
"""What policies are asked about: documents that the engine survives."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cocos.errors import FormatError
from cocos.policy import _source
from cocos.policy._input import fits

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 16_384
"""In an input."""

MAX_SLOW_VALUES: Final = 1_024
"""In an input with a number that only the engine's slow parser takes."""


@dataclass(frozen=True, slots=True)
class BaseDocuments:
    """Rego's ``data`` as far as it is the same for many evaluations.

    Attributes:
        text: As JSON.
        digest: Of the text.
    """

    text: str
    digest: str

    @classmethod
    def of(
        cls, reference_values: Mapping[str, Any] | None = None, **others: Any
    ) -> "BaseDocuments":
        """Prepare base documents.

        Args:
            reference_values: For ``query_reference_value(id)``.
            others: Further members of ``data``.

        Raises:
            FormatError: no plain JSON, or a number in exponent notation.
        """
        members = {_source.REFERENCE_VALUES: _source.shards(reference_values or {}), **others}
        return cls.from_text(to_text(members))

    @classmethod
    def from_text(cls, text: str) -> "BaseDocuments":
        """Return what has :attr:`text`."""
        return cls(text, hashlib.sha256(text.encode()).hexdigest())


def is_direct(document: Mapping[str, Any]) -> bool:
    """Check an input; return whether it can be given to the engine value by value."""
    census = _Census()
    try:
        census.take(document, MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the policy's input is not plain JSON: {error}") from error
    limit = MAX_VALUES if census.direct else MAX_SLOW_VALUES
    if census.values > limit:
        raise FormatError(f"the policy's input has more than {limit} values")
    return census.direct


def to_text(data: Mapping[str, Any]) -> str:
    """Return base documents as JSON, the same text for the same documents."""
    try:
        # The engine crashes on base documents with a number in exponent notation.
        _Census(plain_numbers=True).take(data, MAX_DEPTH)
        return to_json(data, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the policy's data is not plain JSON: {error}") from error


def with_members(base: BaseDocuments, members: Mapping[str, Any]) -> str:
    """Return base documents with further members, as JSON."""
    return to_text({**json.loads(base.text), **members})


def to_json(value: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """Return JSON for the engine."""
    # It compares strings as they are written: \u00e4 would not equal ä.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    return text.encode("utf-8", "backslashreplace").decode()


class _Census:
    """Counts the values of a document, and refuses what the engine does not survive."""

    def __init__(self, *, plain_numbers: bool = False) -> None:
        self.values = 0
        self.direct = True
        self._plain_numbers = plain_numbers

    def take(self, value: object, room: int) -> None:
        if room == 0:  # the engine overflows its stack on deep documents
            raise ValueError("nested too deep")
        self.values += 1
        if isinstance(value, Mapping):
            for name, member in value.items():
                if not isinstance(name, str):
                    raise TypeError("a member's name is not text")
                self.take(member, room - 1)
        elif isinstance(value, list | tuple):
            for member in value:
                self.take(member, room - 1)
        elif isinstance(value, int | float):
            self._number(value)
        elif value is not None and not isinstance(value, str):
            raise TypeError(f"a {type(value).__name__} is no JSON")

    def _number(self, number: float) -> None:
        if not math.isfinite(number):
            raise ValueError("a number without value")
        if self._plain_numbers and not isinstance(number, int) and "e" in repr(number):
            raise ValueError(f"the number {number} is too large or too small")
        if not fits(number):
            self.direct = False


NOTHING: Final = BaseDocuments.of()
