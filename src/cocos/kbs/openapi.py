# SPDX-License-Identifier: Apache-2.0
"""What the key broker's routes do not tell of its interface."""

from importlib.metadata import version
from typing import Final

from cocos.transport.openapi import About
from cocos.wire.kbs import protocol as kbs

PATH: Final = "/openapi.json"

ADMIN: Final = ("admin",)
"""An administrator's route."""

GUEST: Final = ("session", "token")
"""A guest's route: its session first, else a token of its own."""

HANDSHAKE: Final = ("session",)
"""The second half of a handshake."""

_SEGMENT: Final = {"type": "string", "pattern": f"^{kbs.SEGMENT}$"}


def about() -> About:
    """Describe the key broker."""
    return About(
        title="Key broker service",
        version=version("cocos"),
        description=(
            "Trustee's KBS protocol, versions 0.4.0, 0.2.0 and 0.1.1, and what administrators "
            "do. Slashes in the last parameter of a path may stand as such or as %2F. An error "
            "is application/problem+json; its id is also in the header X-Request-Id and in the "
            "server's log."
        ),
        schemes={
            "admin": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "Of an administrator: kbs-client admin-token",
            },
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": kbs.SESSION_COOKIE,
                "description": "From auth; stands for a token once attest has accepted evidence",
            },
            "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "An attestation result of this KBS or of an issuer it trusts",
            },
        },
        parts={"path": ("repository", "type", "tag")},
        parameters=dict.fromkeys(("repository", "type", "tag"), _SEGMENT),
    )
