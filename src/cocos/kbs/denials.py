# SPDX-License-Identifier: Apache-2.0
"""Why something was denied, kept for ``kbs-client explain``."""

import datetime as dt
import re
from time import monotonic
from typing import Final

import msgspec

from cocos._clock import Clock
from cocos.errors import (
    AccessDeniedError,
    CallerError,
    CocosError,
    EvidenceError,
    Finding,
    NotFoundError,
    TooManyRequestsError,
)
from cocos.kbs.admission import RateLimit
from cocos.stores.base import Namespace, Store
from cocos.wire import json

LIFETIME: Final = dt.timedelta(days=7)
_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
# Anybody can be denied as often as they like. A slot per four digits of the id bounds
# what that costs: a later denial may take an earlier one's place, seldom in practice.
_SLOT_DIGITS: Final = 4
_MAX_STEP: Final = 300
# A request that is malformed costs its sender nothing; a write costs us a little.
_MALFORMED_PER_SECOND: Final = 10


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
        self._malformed = RateLimit(_MALFORMED_PER_SECOND, clients=1)

    async def record(
        self, denial_id: str, step: str, error: CocosError, *, handshake: bool
    ) -> None:
        """Keep ``error`` under ``denial_id``, 16 lower-case hex digits, if it is a denial.

        Args:
            denial_id: Id of the request, which the peer was told.
            step: What was asked for, such as ``POST /kbs/v0/attest``.
            error: Why not.
            handshake: The step is one of a handshake, whose every failure counts; of those
                that come before evidence is looked at only so many are kept.
        """
        judged = isinstance(error, EvidenceError | AccessDeniedError)
        early = handshake and isinstance(error, CallerError)
        if not judged and not (early and self._has_room()):
            return
        now = self._clock()
        findings = error.findings or (Finding(error.code, error.message),)
        hint = error.hint or ""
        denial = Denial(denial_id, now, step[:_MAX_STEP], error.code, error.message, hint, findings)
        await self._store.put(
            Namespace.DENIAL,
            denial_id[:_SLOT_DIGITS],
            json.encode(denial),
            expires=now + LIFETIME,
        )

    def _has_room(self) -> bool:
        try:
            self._malformed.admit("", monotonic())
        except TooManyRequestsError:
            return False
        return True

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
            "explanations are kept for a week, of malformed requests not all",
        )
