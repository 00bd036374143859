# SPDX-License-Identifier: Apache-2.0
"""The first step of a handshake: which generation of the protocol, and when.

A KBS that refuses our version is asked in an older one. The refusal may come from somebody
on the way, so that by default nothing is given up for it: protocol 0.2.0 is spoken only
where there are neither devices nor init data to show, and 0.1.1 not at all.
"""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from cocos.clients._http import Answer, HttpServer
from cocos.clients._kbs_http import BASE, OK, problem_of, refusal, variant
from cocos.errors import UnsupportedError
from cocos.wire import json
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.generations import NEWEST, Generation

_MISMATCH: Final = "KBS Client Protocol Version Mismatch"
# What a KBS before v0.14 may have said to any Request that it did not like.
_SAYS_NOTHING: Final = "Attestation error: RCAR handshake Auth failed"

_log = structlog.get_logger(__name__)


class Opening:
    """Opens sessions with one KBS.

    Args:
        server: The KBS.
        oldest: The oldest generation to go down to, whatever it loses; None for what loses
            nothing.
    """

    def __init__(self, server: HttpServer, *, oldest: Generation | None) -> None:
        self._server = server
        self._oldest = oldest

    async def auth(self, tee: kbs.Tee, params: Mapping[str, Any]) -> tuple[Generation, Answer]:
        """Return the generation that the KBS accepts, and its answer of status 200.

        Args:
            tee: Primary attester.
            params: ``extra-params`` of the Request.

        Raises:
            CocosError: as the KBS refuses.
        """
        answer = await self._ask(NEWEST, tee, params)
        if answer.status == OK:
            return NEWEST, answer
        first = refusal(self._server, answer, "a session")
        if not _is_mismatch(answer):
            raise first
        for generation in NEWEST.older:
            if generation < (self._oldest or Generation.V0_2_0):
                break
            answer = await self._ask(generation, tee, params)
            if answer.status == OK:
                _log.warning(
                    "kbs.older-protocol",
                    url=self._server.url,
                    protocol=generation.value,
                    meaning=_MEANING[generation],
                )
                return generation, answer
        if first.hint is None and self._oldest is not Generation.V0_1_1:
            first.hint = _HINT.format(Generation.V0_1_1)
        raise first

    def check_loss(self, generation: Generation, what: Mapping[str, bool]) -> None:
        """Check that nothing is lost which the user did not give up.

        Args:
            generation: Which the KBS speaks.
            what: Name → whether there is such a thing to show.

        Raises:
            UnsupportedError: the generation has no place for something.
        """
        lost = [] if generation.composite else [name for name, present in what.items() if present]
        if lost and self._oldest is None:
            raise UnsupportedError(
                f"the KBS at {self._server.url} speaks protocol {generation}, in which "
                f"{' and '.join(lost)} cannot be shown",
                hint=_HINT.format(generation),
            )
        if lost:
            _log.warning("kbs.not-shown", url=self._server.url, lost=lost)

    async def _ask(self, generation: Generation, tee: kbs.Tee, params: Mapping[str, Any]) -> Answer:
        body = json.encode(kbs.Request(generation.value, tee, dict(params)))
        return await self._server.request(
            "POST", f"{BASE}/auth", content=body, headers={"Content-Type": "application/json"}
        )


_HINT: Final = (
    'if you know this KBS to be so old: oldest_protocol = "{0}" (kbs-client: --oldest-protocol {0})'
)
_MEANING: Final = {
    Generation.V0_2_0: "evidence says nothing about devices and init data",
    Generation.V0_1_1: "as before, and resources come with RSA1_5 and a header that nothing "
    "authenticates",
}


def _is_mismatch(answer: Answer) -> bool:
    problem = problem_of(answer)
    return problem is not None and (
        _MISMATCH in problem.detail
        or problem.detail == _SAYS_NOTHING
        or variant(problem) == "ProtocolVersion"
    )
