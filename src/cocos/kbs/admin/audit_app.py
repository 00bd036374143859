# SPDX-License-Identifier: Apache-2.0
"""The audit log for administrators, below ``/kbs/v0``."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos.errors import FormatError
from cocos.kbs.audit import AuditLog
from cocos.kbs.charges import AdminDoor
from cocos.kbs.openapi import ADMIN
from cocos.transport.openapi import json_of, operation
from cocos.transport.web import json_response
from cocos.wire.audit import Head, Page

MAX_PAGE: Final = 1000
_MAX_SEQ: Final = 2**63 - 1


def audit_routes(log: AuditLog, admins: AdminDoor, *, prefix: str) -> list[Route]:
    """Return the routes that read the audit log; nothing writes it."""

    @operation(
        "Read the audit log",
        answer=json_of(Page),
        query={
            "after": "Only records behind the one of this number",
            "limit": f"How many at most; {MAX_PAGE} without",
        },
        security=ADMIN,
    )
    async def page(request: Request) -> Response:
        await admins.admit(request)
        after = _number(request, "after", default=0, largest=_MAX_SEQ)
        limit = _number(request, "limit", default=MAX_PAGE, largest=MAX_PAGE)
        return json_response(await log.read(after, limit))

    @operation("The newest checkpoint of the audit log", answer=json_of(Head), security=ADMIN)
    async def head(request: Request) -> Response:
        await admins.admit(request)
        return json_response(await log.head())

    return [
        Route(f"{prefix}/audit", page, methods=["GET"]),
        Route(f"{prefix}/audit/checkpoint", head, methods=["GET"]),
    ]


def _number(request: Request, name: str, *, default: int, largest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or int(text) > largest:
        raise FormatError(f"{name} is not a number from 0 to {largest}")
    return int(text)
