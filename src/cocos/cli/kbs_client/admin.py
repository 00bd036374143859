# SPDX-License-Identifier: Apache-2.0
"""What kbs-client's commands for administrators share: the connection, and who asks."""

import datetime as dt
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cocos._clock import system_clock
from cocos.cli import _common as common
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import ConfigError, UsageError
from cocos.host.files import read_file

AuthPrivateKey = Annotated[
    Path | None,
    typer.Option(
        "--auth-private-key",
        envvar="KBS_AUTH_PRIVATE_KEY",
        help="The admin's Ed25519 private key, PEM; a short-lived token is made with it.",
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-token-file",
        envvar="KBS_ADMIN_TOKEN_FILE",
        help="A token of kbs-client admin-token, or of an identity provider. "
        "[default: kbs/config/docker-compose/admin-token of Trustee's checkout, else "
        "~/.trustee/admin-token, if there is one]",
    ),
]
_TOKEN_FILES = ("kbs/config/docker-compose/admin-token", "~/.trustee/admin-token")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the KBS is, and how an admin proves itself.

    Attributes:
        url: Base URL.
        cert_file: The only CA to trust, as PEM.
        token: Admin JWT; None to ask without.
    """

    url: str
    cert_file: Path | None
    token: str | None = field(default=None, repr=False)

    def as_admin(self, private_key: Path | None, token_file: Path | None) -> "Connection":
        """Return the connection with a token made by a key, or read from a file.

        Raises:
            UsageError: both.
            ConfigError: a file that cannot be used.
        """
        if private_key is not None and token_file is not None:
            raise UsageError("--auth-private-key and --admin-token-file exclude each other")
        if private_key is not None:
            return replace(self, token=mint(private_key))
        if token_file is None:
            files = (Path(name).expanduser() for name in _TOKEN_FILES)
            token_file = next((file for file in files if file.is_file()), None)
        if token_file is None:
            return self
        token = read_text(token_file, "the admin's token").strip()
        if not token.isascii() or not token.isprintable():
            raise ConfigError(f"{token_file} holds no token")
        return replace(self, token=token)


def mint(
    private_key: Path,
    lifetime: dt.timedelta = dt.timedelta(minutes=5),
    claims: dict[str, Any] | None = None,
) -> str:
    """Return an admin token signed by the key in a file."""
    pem = read_file(private_key, "the admin's private key", limit=2**16)
    return admin_jwt.mint(pem, now=system_clock(), lifetime=lifetime, claims=claims)


def run_admin(connection: Connection, work: Callable[[KbsAdmin], Awaitable[Any]]) -> Any:
    """Do something as admin, and return what it returns."""

    async def run() -> Any:
        async with KbsAdmin(
            connection.url, token=connection.token, ca_file=connection.cert_file
        ) as admin:
            return await work(admin)

    with common.stderr.status(f"asking the KBS at {connection.url}"):
        return common.run_async(run())


def read_text(path: Path, what: str) -> str:
    """Read a text file that the user named."""
    try:
        return read_file(path, what, limit=2**20).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}, {path}, is not UTF-8 text") from error


def done(sentence: str, data: dict[str, Any], *, as_json: bool) -> None:
    """Say what was done."""
    common.emit(data, lambda: common.stdout.print(sentence, markup=False), as_json=as_json)


def show_names(names: list[str], *, as_json: bool) -> None:
    """Print names, one a line."""

    def lines() -> None:
        for name in names:
            common.stdout.print(name)

    common.emit(names, lines, as_json=as_json)
