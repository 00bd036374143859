# SPDX-License-Identifier: Apache-2.0
"""Why something was denied, kept for ``kbs-client explain``."""

import datetime as dt
import re
from typing import Final

import msgspec

from cocos._clock import Clock
from cocos.errors import AccessDeniedError, CocosError, EvidenceError, Finding, NotFoundError
from cocos.stores.base import Namespace, Store
from cocos.wire import json

LIFETIME: Final = dt.timedelta(days=7)
_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
# Anybody can be denied as often as they like. A slot per four digits of the id bounds
# what that costs: a later denial may take an earlier one's place, seldom in practice.
_SLOT_DIGITS: Final = 4


class Denial(msgspec.Struct, frozen=True):
    """One denial: its id, when, at which step, and every check that did not hold."""

    id: str
    time: dt.datetime
    step: str
    code: str
    message: str
    hint: str
    findings: tuple[Finding, ...]


class Denials:
    """Keeps denials for a week."""

    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def record(self, denial_id: str, step: str, error: CocosError) -> None:
        """Keep ``error`` under ``denial_id``, 16 lower-case hex digits, if it is a denial.

        Args:
            denial_id: Id of the request, which the peer was told.
            step: What was asked for, such as ``POST /kbs/v0/attest``.
            error: Why not.
        """
        if not isinstance(error, EvidenceError | AccessDeniedError):
            return
        now = self._clock()
        denial = Denial(
            denial_id, now, step, error.code, error.message, error.hint or "", error.findings
        )
        await self._store.put(
            Namespace.DENIAL,
            denial_id[:_SLOT_DIGITS],
            json.encode(denial),
            expires=now + LIFETIME,
        )

    async def get(self, denial_id: str) -> Denial:
        """Return a denial.

        Raises:
            NotFoundError: none under that id, or no longer.
        """
        if _ID.fullmatch(denial_id):
            stored = await self._store.get(Namespace.DENIAL, denial_id[:_SLOT_DIGITS])
            if stored is not None:
                denial: Denial = json.decode(stored, Denial, "a stored denial")
                if denial.id == denial_id:
                    return denial
        raise NotFoundError(
            f"nothing was denied under the id {denial_id!r}",
            hint="the id is in the refused client's message and in the KBS's log; "
            "explanations are kept for a week",
        )
