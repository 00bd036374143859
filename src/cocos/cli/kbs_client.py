# SPDX-License-Identifier: Apache-2.0
"""kbs-client: operate a key broker service, or try it as a guest."""

import base64
import datetime as dt
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from cocos._types import JsonObject
from cocos.attesters import detect
from cocos.cli import _common as common
from cocos.cli import kbs_config
from cocos.cli.kbs_config import Connection
from cocos.clients.kbs import KbsClient
from cocos.errors import UsageError
from cocos.wire.kbs import ResourcePath, ResourceUri
from cocos.wire.kbs_generations import Generation

NAME = "kbs-client"

T = TypeVar("T")

app = common.make_app("Operate a key broker service (KBS), or try it as a guest.")
app.add_typer(kbs_config.app, name="config")

AdminKey = Annotated[
    Path, typer.Option("--auth-private-key", help="The admin's Ed25519 private key, as PEM.")
]
InsecureSample = Annotated[
    bool,
    typer.Option(
        "--insecure-sample",
        envvar="COCOS_INSECURE_SAMPLE",
        help="If no TEE is found, send sample evidence, which proves nothing.",
    ),
]

OldestProtocol = Annotated[
    Generation | None,
    typer.Option(
        "--oldest-protocol",
        help="Speak even this one with a KBS that knows nothing newer. [0.2.0, where nothing is "
        "lost by it]",
        show_default=False,
    ),
]

_LIFETIME = re.compile(r"([1-9]\d{0,4})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.callback()
def global_options(
    context: typer.Context,
    *,
    url: Annotated[str, typer.Option("--url", help="The KBS.")] = "http://127.0.0.1:8080",
    cert_file: Annotated[
        Path | None,
        typer.Option(
            "--cert-file", help="The only CA, or self-signed certificate, to trust, as PEM."
        ),
    ] = None,
    log_level: common.LogLevel = "warning",
    debug: common.DebugFlag = False,
) -> None:
    """Remember where the KBS is."""
    common.configure_logs(log_level, debug=debug)
    context.obj = Connection(url, cert_file)


@app.command("admin-token")
def admin_token(
    *,
    auth_private_key: AdminKey,
    lifetime: Annotated[
        str, typer.Option("--lifetime", help="How long it is valid: 90s, 30m, 2h, 1d.")
    ] = "2h",
    as_json: common.JsonFlag = False,
) -> None:
    """Print a token for admin requests, for curl's "Authorization: Bearer …"."""
    match = _LIFETIME.fullmatch(lifetime)
    if match is None:
        raise UsageError(f"{lifetime!r} is no lifetime", hint="90s, 30m, 2h or 1d")
    duration = dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
    token = kbs_config.mint(auth_private_key, duration)
    common.emit({"token": token}, lambda: print(token), as_json=as_json)  # noqa: T201


@app.command("attest")
def attest(
    context: typer.Context,
    *,
    insecure_sample: InsecureSample = False,
    oldest_protocol: OldestProtocol = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Attest this machine and print the token."""
    token = _as_guest(
        context.obj, KbsClient.attest, insecure_sample=insecure_sample, oldest=oldest_protocol
    )
    common.emit({"token": token}, lambda: print(token), as_json=as_json)  # noqa: T201


@app.command("get-resource")
def get_resource(
    context: typer.Context,
    *,
    path: Annotated[str, typer.Option("--path", help="The resource, as repository/type/tag.")],
    insecure_sample: InsecureSample = False,
    oldest_protocol: OldestProtocol = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Attest this machine and print a resource, as base64."""
    uri = ResourceUri.parse(ResourcePath.parse(path.lstrip("/")).uri)
    data = _as_guest(
        context.obj,
        lambda client: client.get_resource(uri),
        insecure_sample=insecure_sample,
        oldest=oldest_protocol,
    )
    text = base64.b64encode(data).decode("ascii")
    common.emit({"path": path, "resource": text}, lambda: print(text), as_json=as_json)  # noqa: T201


@app.command("explain")
def explain(
    context: typer.Context,
    denial: Annotated[str, typer.Argument(metavar="ID", help="As the refused guest was told.")],
    *,
    auth_private_key: Annotated[
        Path | None,
        typer.Option("--auth-private-key", help="The admin's Ed25519 private key, as PEM."),
    ] = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Say why the KBS refused something: every check that did not hold."""
    where: Connection = context.obj
    token = kbs_config.mint(auth_private_key) if auth_private_key is not None else None
    found: JsonObject = kbs_config.run_admin(
        Connection(where.url, where.cert_file, token), lambda admin: admin.explain(denial)
    )
    common.emit(found, lambda: _show_denial(found), as_json=as_json)


def _as_guest(
    connection: Connection,
    work: Callable[[KbsClient], Awaitable[T]],
    *,
    insecure_sample: bool,
    oldest: Generation | None,
) -> T:
    async def run() -> T:
        attester = await detect(insecure_sample=insecure_sample)
        async with KbsClient(
            connection.url, attester, ca_file=connection.cert_file, oldest=oldest
        ) as client:
            return await work(client)

    with common.stderr.status(f"attesting to the KBS at {connection.url}"):
        return common.run_async(run())


def _show_denial(denial: JsonObject) -> None:
    for name in ("time", "step", "message", "hint"):
        if denial.get(name):
            common.stdout.print(f"{name:>8}: {denial[name]}", markup=False)
    table = Table("check", "problem", "actual", "expected")
    for finding in denial.get("findings", ()):
        # Guests chose some of these words: plain text, no markup.
        table.add_row(
            *(
                Text(str(finding.get(name, "")))
                for name in ("check", "problem", "actual", "expected")
            )
        )
    if table.row_count:
        common.stdout.print(table)


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
