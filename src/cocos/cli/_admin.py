# SPDX-License-Identifier: Apache-2.0
"""The options of every program that speaks to a KBS as its administrator."""

from pathlib import Path
from typing import Annotated, Final

import typer

from cocos.clients.admin_credentials import Credentials
from cocos.errors import ConfigError, UsageError
from cocos.host.files import read_file

ENVIRONMENT: Final = {
    "auth_private_key": "KBS_AUTH_PRIVATE_KEY",
    "admin_token_file": "KBS_ADMIN_TOKEN_FILE",
    "admin_role": "KBS_ADMIN_ROLE",
    "admin_issuer": "KBS_ADMIN_ISSUER",
    "admin_audience": "KBS_ADMIN_AUDIENCE",
}
"""Setting → variable that every such program reads."""

AuthPrivateKey = Annotated[
    Path | None,
    typer.Option(
        "--auth-private-key",
        envvar=ENVIRONMENT["auth_private_key"],
        help="The admin's Ed25519 private key, as PEM; a short-lived token is made with it.",
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        envvar=ENVIRONMENT["admin_token_file"],
        help="A token of kbs-client admin-token, or of an identity provider. "
        "[default: kbs/config/docker-compose/admin-token of Trustee's checkout, else "
        "~/.trustee/admin-token, if there is one; such a one is not sent by plain HTTP to "
        "other machines]",
    ),
]
Role = Annotated[
    str | None,
    typer.Option(
        "--role",
        envvar=ENVIRONMENT["admin_role"],
        help="Claim role of tokens that are made, for a KBS with an access list. [default: admin]",
        show_default=False,
    ),
]
Issuer = Annotated[
    str | None,
    typer.Option(
        "--issuer",
        envvar=ENVIRONMENT["admin_issuer"],
        help="Claim iss of tokens that are made, if the KBS looks at it, such as TrusteeInDocker.",
    ),
]
Audience = Annotated[
    str | None,
    typer.Option(
        "--audience",
        envvar=ENVIRONMENT["admin_audience"],
        help="Claim aud of tokens that are made, if the KBS looks at it.",
    ),
]
_TOKEN_FILES: Final = ("kbs/config/docker-compose/admin-token", "~/.trustee/admin-token")


def credentials(
    private_key: Path | None,
    token_file: Path | None,
    role: str | None,
    issuer: str | None,
    audience: str | None,
    *,
    look: bool = True,
) -> Credentials:
    """Return how an administrator proves itself.

    Args:
        private_key: A file.
        token_file: A file.
        role: Claim of tokens that are made with the key; likewise issuer and audience.
        issuer: Claim iss.
        audience: Claim aud.
        look: Without either, in the files where Trustee's client finds a token.

    Raises:
        UsageError: both.
        ConfigError: a file that cannot be used.
    """
    if private_key is not None and token_file is not None:
        raise UsageError("--auth-private-key and --admin-token-file exclude each other")
    if private_key is not None:
        pem = read_file(private_key, "the admin's private key", limit=2**16)
        given = {"role": role, "iss": issuer, "aud": audience}
        claims = {name: value for name, value in given.items() if value is not None}
        return Credentials(private_key=pem, claims=claims, source=str(private_key))
    found = token_file is None
    if token_file is None and look:
        files = (Path(name).expanduser() for name in _TOKEN_FILES)
        token_file = next((file for file in files if file.is_file()), None)
    if token_file is None:
        return Credentials()
    token = read_file(token_file, "the admin's token", limit=2**20).decode("utf-8", "replace")
    if not token.strip().isascii() or not token.strip().isprintable():
        raise ConfigError(f"{token_file} holds no token")
    return Credentials(token=token.strip(), source=str(token_file), found=found)
