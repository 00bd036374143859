# SPDX-License-Identifier: Apache-2.0
"""What policies are asked about: documents that the engine takes as they are."""

import enum
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from cocos.errors import FormatError

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 16_384
"""In an input."""

REFERENCE_VALUES: Final = "reference_values"
"""Base document that only ``query_reference_value`` looks into."""

_LAPSED: Final = "lapsed"
_RULES: Final = "policy"
_INTEGERS: Final = range(-(2**63), 2**64)


class Kind(enum.StrEnum):
    """What a policy is for."""

    RESOURCE = "resource"
    ATTESTATION = "attestation"

    @property
    def verdict(self) -> str:
        """Return the rule that decides."""
        return "allow" if self is Kind.RESOURCE else "trust_claims"


@dataclass(frozen=True, slots=True)
class BaseDocuments:
    """Rego's ``data`` as far as it is the same for many evaluations.

    Attributes:
        text: As JSON.
        digest: Of the text.
        reference_values: For ``query_reference_value(id)``; None where a policy must not ask.
        lapsed: Names of reference values that have expired: who asks for one fails.
        data: The rest.
    """

    text: str
    digest: str
    reference_values: Mapping[str, Any] | None = field(repr=False)
    lapsed: frozenset[str] = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(
        cls,
        reference_values: Mapping[str, Any] | None = MappingProxyType({}),
        *,
        lapsed: Collection[str] = (),
        **others: Any,
    ) -> "BaseDocuments":
        """Prepare base documents.

        Args:
            reference_values: For ``query_reference_value(id)``; None: it must not be called.
            lapsed: Names of those that have expired.
            others: Further members of ``data``.

        Raises:
            FormatError: no plain JSON, or a number that the engine would change.
        """
        values = None if reference_values is None else dict(reference_values)
        members = {REFERENCE_VALUES: values, _LAPSED: sorted(lapsed), **others}
        check_data(members)
        return cls.from_text(json.dumps(members, sort_keys=True))

    @classmethod
    def from_text(cls, text: str) -> "BaseDocuments":
        """Return what has :attr:`text`."""
        members = json.loads(text)
        values, lapsed = members.pop(REFERENCE_VALUES), frozenset(members.pop(_LAPSED))
        return cls(text, hashlib.sha256(text.encode()).hexdigest(), values, lapsed, members)


def check_data(members: Mapping[str, Any]) -> None:
    """Check members of ``data``.

    Raises:
        FormatError: the engine would not take them as they are, or for rules.
    """
    if _RULES in members:
        # The engine would believe them instead of the policy's own rules.
        raise FormatError(f"the policy's data has no member {_RULES!r}")
    _take("data", members)


def check_input(document: Mapping[str, Any]) -> None:
    """Check an input.

    Raises:
        FormatError: the engine would not take it as it is, or it has too many values.
    """
    if _take("input", document) > MAX_VALUES:
        raise FormatError(f"the policy's input has more than {MAX_VALUES} values")


def _take(what: str, document: Mapping[str, Any]) -> int:
    census = _Census()
    try:
        census.take(document, MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the policy's {what} is not plain JSON: {error}") from error
    return census.values


class _Census:
    """Counts the values of a document, and refuses what the engine would change."""

    def __init__(self) -> None:
        self.values = 0

    def take(self, value: object, room: int) -> None:
        if room == 0:
            raise ValueError("nested too deep")
        self.values += 1
        if isinstance(value, str):
            value.encode()  # half a surrogate pair has no place in the engine
        elif isinstance(value, Mapping):
            for name, member in value.items():
                if not isinstance(name, str):
                    raise TypeError("a member's name is not text")
                name.encode()
                self.take(member, room - 1)
        elif isinstance(value, list | tuple):
            for member in value:
                self.take(member, room - 1)
        elif isinstance(value, int | float):
            _check_number(value)
        elif value is not None:
            raise TypeError(f"a {type(value).__name__} is no JSON")


def _check_number(number: float) -> None:
    if isinstance(number, int):
        # It would become one that it is not: 2^64 + 1 would equal 2^64.
        if number not in _INTEGERS:
            raise ValueError("an integer of more than 64 bits")
    elif not math.isfinite(number):
        raise ValueError("a number without value")


NOTHING: Final = BaseDocuments.of(None)
"""What policies see that have no business with reference values: those of resources."""
NONE_REGISTERED: Final = BaseDocuments.of()
"""What attestation policies see of reference values where there are none."""
