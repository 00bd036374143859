# SPDX-License-Identifier: Apache-2.0
"""Whoever sits between a guest and its KBS: sees what travels, and answers as it likes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cocos.crypto import jwe

RESOURCE = "/kbs/v0/resource/"


@dataclass
class Seen:
    """A request, and the KBS's answer to it."""

    path: str
    headers: dict[str, str]
    status: int
    answer: dict[str, str]
    body: bytes


Change = Callable[["Impostor", Seen], Seen]


@dataclass
class Impostor:
    """Passes requests to a KBS, and changes what comes back.

    ``tee_key`` is the public key of the last guest that attested; ``seen`` all answers.
    """

    kbs: ASGIApp
    change: Change
    tee_key: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"].endswith("/attest"):
            self.tee_key = json.loads(body)["runtime-data"]["tee-pubkey"]
        found = self.change(self, await self._ask(scope, bytes(body)))
        self.seen.append(found)
        headers = {**found.answer, "content-length": str(len(found.body))}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": found.status, "headers": raw})
        await send({"type": "http.response.body", "body": found.body})

    async def _ask(self, scope: Scope, body: bytes) -> Seen:
        parts: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            parts.append(message)

        await self.kbs(scope, receive, send)
        start, *rest = parts
        return Seen(
            scope["path"],
            {name.decode(): value.decode() for name, value in scope["headers"]},
            start["status"],
            {name.decode().lower(): value.decode() for name, value in start["headers"]},
            b"".join(each.get("body", b"") for each in rest),
        )

    def sealed(self, secret: bytes) -> bytes:
        """An answer with a secret of our own, for the guest's key alone, as a KBS makes it."""
        return json.dumps(jwe.encrypt(secret, self.tee_key), separators=(",", ":")).encode()
