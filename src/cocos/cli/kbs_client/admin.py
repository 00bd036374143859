# SPDX-License-Identifier: Apache-2.0
"""What kbs-client's commands for administrators share: the connection, and who asks."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cocos._clock import system_clock
from cocos.cli import _common as common
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.errors import ConfigError
from cocos.host.files import read_file


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the KBS is, and how an admin proves itself.

    Attributes:
        url: Base URL.
        cert_file: The only CA to trust, as PEM.
        credentials: What proves an administrator, if anything does.
    """

    url: str
    cert_file: Path | None
    credentials: Credentials = field(default_factory=Credentials)

    def as_admin(self, credentials: Credentials) -> "Connection":
        """Return the connection with what proves an administrator."""
        return replace(self, credentials=credentials)

    def admin(self) -> KbsAdmin:
        """Return the KBS, as administrators see it."""
        self.credentials.check(self.url)
        return KbsAdmin(
            self.url,
            token=self.credentials.bearer(system_clock),
            advice=self.credentials.advice,
            ca_file=self.cert_file,
        )


def run_admin(connection: Connection, work: Callable[[KbsAdmin], Awaitable[Any]]) -> Any:
    """Do something as admin, and return what it returns."""

    async def run() -> Any:
        async with connection.admin() as admin:
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
