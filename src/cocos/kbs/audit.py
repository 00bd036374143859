# SPDX-License-Identifier: Apache-2.0
"""What the key broker writes into the audit log: who asked for what, and what came of it.

A release, an attestation and an administrator's change are answered only after their entry
is durable. Nobody can fill the disk with denials: what exceeds a rate is counted, and the
count is written with the next denial.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from starlette.types import Scope

from cocos._types import VerifiedClaims
from cocos.errors import CocosError, TooManyRequestsError
from cocos.kbs.admission import RateLimit
from cocos.transport.client_address import ClientAddresses
from cocos.transport.web import request_id
from cocos.wire.audit import Entry, Head, Page

DENIALS_PER_SECOND: Final = 50
MAX_REASON: Final = 300
MAX_NAME: Final = 300
"""Characters of what a stranger asked for: a path may have 64 KiB."""

MAX_CHECKS: Final = 50
_TRAIL: Final = "cocos.audit.trail"


class AuditLog(Protocol):
    """Where entries go, and come from."""

    async def append(self, entry: Entry) -> None:
        """Append an entry; return once it is durable."""
        ...

    async def read(self, after: int, limit: int) -> Page:
        """Return records in order, those behind the one of a number."""
        ...

    async def head(self) -> Head:
        """Return the newest checkpoint and the public key."""
        ...


@dataclass(slots=True)
class Trail:
    """What is known of a request so far; the members are those of an entry."""

    request: str = ""
    address: str = ""
    step: str = ""
    admin: str = ""
    tee: str = ""
    evidence: str = ""
    token: str = ""
    verdict: dict[str, str] = field(default_factory=dict)
    resource: str = ""
    policy: str = ""
    policy_digest: str = ""

    def saw_token(self, token: str) -> None:
        """Note a token, not to be had back."""
        self.token = hashlib.sha256(token.encode()).hexdigest()

    def saw_claims(self, claims: VerifiedClaims) -> None:
        """Note what a token says of each submodule."""
        submods = claims.get("submods")
        if isinstance(submods, dict):
            self.verdict = {name: _status(submod) for name, submod in submods.items()}

    def saw_policy(self, policy_id: str, text: str) -> None:
        """Note the policy that decides, or is about to be set."""
        self.policy = policy_id
        self.policy_digest = hashlib.sha256(text.encode()).hexdigest()


class Auditor:
    """Turns what happens into entries."""

    def __init__(
        self,
        log: AuditLog,
        clients: ClientAddresses,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the auditor.

        Args:
            log: Where entries go.
            clients: Tells who asks.
            seconds: Monotonic clock that denials are counted by.
        """
        self._seconds = seconds
        self.log = log
        self._clients = clients
        self._denials = RateLimit(DENIALS_PER_SECOND, clients=1)
        self._uncounted = 0

    def trail(self, scope: Scope) -> Trail:
        """Return the trail of a request, begun when it is first asked for."""
        state = scope.setdefault("state", {})
        if _TRAIL not in state:
            address = self._clients.find(scope)
            state[_TRAIL] = Trail(
                request=request_id(scope),
                address="" if address is None else str(address),
                step=f"{scope['method']} {scope['path']}",
            )
        trail: Trail = state[_TRAIL]
        return trail

    async def attested(self, trail: Trail, *, affirming: bool) -> None:
        """Note that evidence held and a token is about to be given out."""
        await self._append("attested", trail, affirming=affirming)

    async def released(self, trail: Trail) -> None:
        """Note that a resource is about to be given out."""
        await self._append("released", trail)

    async def administered(self, trail: Trail) -> None:
        """Note that an administrator's change is about to be made."""
        await self._append("administered", trail)

    async def failed(self, trail: Trail, error: CocosError) -> None:
        """Note that an administrator's change was not made."""
        await self._append("failed", trail, code=error.code, reason=error.message[:MAX_REASON])

    async def denied(self, trail: Trail, error: CocosError) -> None:
        """Note a denial, or that there was one more."""
        try:
            self._denials.admit("", self._seconds())
        except TooManyRequestsError:
            self._uncounted += 1
            return
        if self._uncounted:
            more, self._uncounted = self._uncounted, 0
            await self.log.append(Entry("denied-more", count=more))
        trail = replace(trail, step=trail.step[:MAX_NAME], resource=trail.resource[:MAX_NAME])
        checks = tuple(finding.check for finding in getattr(error, "findings", ()))
        await self._append(
            "denied",
            trail,
            code=error.code,
            reason=error.message[:MAX_REASON],
            checks=checks[:MAX_CHECKS],
        )

    async def _append(self, event: str, trail: Trail, **more: Any) -> None:
        known = {name: getattr(trail, name) for name in Trail.__slots__}
        await self.log.append(Entry(event, **known, **more))


def _status(submod: Any) -> str:
    return str(submod.get("ear.status", "")) if isinstance(submod, dict) else ""
