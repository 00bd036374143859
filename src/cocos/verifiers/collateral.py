# SPDX-License-Identifier: Apache-2.0
"""Collateral: what makers of processors publish and evidence does not carry.

Certificates, revocation lists, levels of firmware. Verifiers only look at what is stored, and
never wait for a network: what is missing is named, with the command that gets it. Who stores
and fetches is elsewhere.

Names are paths of lower-case words, digits and ``-``, ``_``, ``.``, the maker first:
``amd/crl/milan``, ``intel/tcb/tdx/50806f000000``. A name says all that has to be known to
fetch it.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cocos.errors import EvidenceError, Finding

NAME: Final = re.compile(r"[a-z][a-z0-9-]*(?:/[a-z0-9][a-z0-9._-]{0,199}){1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was fetched.

    Attributes:
        data: The bytes as the maker serves them.
        fetched: When.
        not_after: From then on it is not given out any more.
    """

    data: bytes = field(repr=False)
    fetched: dt.datetime
    not_after: dt.datetime


class Collateral(Protocol):
    """Where verifiers look for it."""

    def get(self, name: str, now: dt.datetime) -> bytes:
        """Return the stored bytes.

        Args:
            name: As above.
            now: When they have to be valid, timezone-aware.

        Raises:
            EvidenceError: not stored, or past its time: see :func:`missing`, :func:`expired`.
        """


class Held:
    """Collateral in memory.

    Args:
        items: Name → item; nothing by default.
    """

    def __init__(self, items: Mapping[str, Item] | None = None) -> None:
        self._items = dict(items or {})

    def get(self, name: str, now: dt.datetime) -> bytes:
        """Return the bytes; see :class:`Collateral`."""
        item = self._items.get(name)
        if item is None:
            raise missing(name)
        return valid(name, item, now)


def valid(name: str, item: Item, now: dt.datetime) -> bytes:
    """Return an item's bytes.

    Raises:
        EvidenceError: it is past its time.
    """
    if now >= item.not_after:
        raise expired(name, item)
    return item.data


def fetch_command(name: str) -> str:
    """Return the command that gets what is missing."""
    return f"cocos-cli collateral fetch {name}"


def missing(name: str) -> EvidenceError:
    """Return the error for what is not stored."""
    return _lacks(name, "this is needed to verify the evidence, and is not stored here", "")


def expired(name: str, item: Item) -> EvidenceError:
    """Return the error for what is stored, but past its time."""
    end = item.not_after.isoformat(timespec="seconds")
    return _lacks(name, "what is stored of this is past its time", end)


def _lacks(name: str, problem: str, actual: str) -> EvidenceError:
    command = fetch_command(name)
    return EvidenceError(
        f"the evidence cannot be verified without {name}: get it with {command}",
        hint=command,
        findings=(Finding(f"collateral.{name}", problem, actual, command),),
    )
