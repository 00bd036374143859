# SPDX-License-Identifier: Apache-2.0
"""kbs-client: operate a key broker service, or try it as a guest."""

import base64
import datetime as dt
import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cocos._clock import system_clock
from cocos._patience import Patience, Wait
from cocos._types import JsonObject
from cocos.attesters import detect
from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.kbs_client import audit, config
from cocos.cli.kbs_client import denial as denials
from cocos.cli.kbs_client.admin import (
    Connection,
    read_text,
    run_admin,
)
from cocos.clients.kbs import EvidenceSource, KbsClient, TokenSource
from cocos.crypto import jwt
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import (
    AuthenticationError,
    ConfigError,
    FormatError,
    TooManyRequestsError,
    UsageError,
)
from cocos.host.files import read_file
from cocos.wire.agent_token import AgentToken
from cocos.wire.kbs.generations import Generation
from cocos.wire.kbs.protocol import InitData, ResourcePath, ResourceUri

NAME = "kbs-client"
BUSY_SECONDS = 20
"""How long to wait for a KBS that says it is too busy."""

T = TypeVar("T")

app = common.make_app("Operate a key broker service (KBS), or try it as a guest.")
app.add_typer(config.app, name="config")
app.add_typer(audit.app, name="audit")

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
        help="Speak even this one with a KBS that knows nothing newer. [default: 0.2.0, "
        "where nothing is "
        "lost by it]",
        show_default=False,
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        envvar="COCOS_LOG_LEVEL",
        help="debug, info, warning or error. [default: RUST_LOG's, or warning]",
    ),
]
TeeKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--tee-key-file",
        help="The private key that resources are encrypted to, as PEM: EC P-256, P-521 or RSA. "
        "[default: a new one]",
    ),
]
InitDataText = Annotated[
    str | None,
    typer.Argument(metavar="INIT_DATA", help="Init data, the text itself; or --initdata."),
]
InitDataFile = Annotated[
    Path | None,
    typer.Option(
        "--initdata", help="A file with init data, what the host passed in, as TOML or JSON."
    ),
]

_LIFETIME = re.compile(r"([1-9]\d{0,4})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.callback()
def global_options(
    context: typer.Context,
    *,
    url: Annotated[
        str, typer.Option("--kbs", "--url", metavar="URL", envvar="KBS_URL", help="The KBS.")
    ] = "http://127.0.0.1:8080",
    cert_file: Annotated[
        Path | None,
        typer.Option(
            "--kbs-ca",
            "--cert-file",
            envvar="KBS_CERT_FILE",
            help="The only CA, or self-signed certificate, to trust, as PEM.",
        ),
    ] = None,
    log_level: LogLevel = None,
    debug: common.DebugFlag = False,
) -> None:
    """Remember where the KBS is."""
    common.configure_logs(level_of_logs(log_level, "warning"), debug=debug)
    context.obj = Connection(url, cert_file)


@app.command("admin-token")
def admin_token(
    *,
    auth_private_key: Annotated[
        Path,
        typer.Option(
            "--auth-private-key",
            envvar="KBS_AUTH_PRIVATE_KEY",
            help="The admin's Ed25519 private key, as PEM.",
        ),
    ],
    lifetime: Annotated[
        str, typer.Option("--lifetime", help="How long it is valid: 90s, 30m, 2h, 1d.")
    ] = "2h",
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Print a token for admin requests, for curl's "Authorization: Bearer …"."""
    match = _LIFETIME.fullmatch(lifetime)
    if match is None:
        raise UsageError(f"--lifetime: {lifetime!r} is no time", hint="90s, 30m, 2h or 1d")
    duration = dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
    maker = admin.credentials(auth_private_key, None, role, issuer, audience)
    token = maker.bearer(system_clock, duration)
    common.emit({"token": token}, lambda: print(token), as_json=as_json)  # noqa: T201


@app.command("attest")
def attest(
    context: typer.Context,
    init_data: InitDataText = None,
    *,
    initdata: InitDataFile = None,
    tee_key_file: TeeKeyFile = None,
    insecure_sample: InsecureSample = False,
    oldest_protocol: OldestProtocol = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Attest this machine and print the token."""
    guest = _Guest(
        insecure_sample,
        _tee_key(tee_key_file),
        _init_data(init_data, initdata),
        oldest=oldest_protocol,
    )
    token = guest.run(context.obj, KbsClient.attest)
    common.emit({"token": token}, lambda: print(token), as_json=as_json)  # noqa: T201


@app.command("get-resource")
def get_resource(
    context: typer.Context,
    init_data: InitDataText = None,
    *,
    path: Annotated[
        str,
        typer.Option(
            "--resource", "--path", help="The resource: repository/type/tag, or kbs:///…."
        ),
    ],
    initdata: InitDataFile = None,
    tee_key_file: TeeKeyFile = None,
    attestation_token_file: Annotated[
        Path | None,
        typer.Option(
            "--attestation-token",
            help="A token of kbs-client attest to show instead of evidence; with its "
            "--tee-key-file.",
        ),
    ] = None,
    insecure_sample: InsecureSample = False,
    oldest_protocol: OldestProtocol = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Attest this machine, or show a token, and print a resource, as base64."""
    uri = _resource(path)
    key = _tee_key(tee_key_file)
    given = _init_data(init_data, initdata)
    token = None
    if attestation_token_file is not None:
        if key is None:
            raise UsageError("--attestation-token needs the --tee-key-file of its attestation")
        if given is not None:
            raise UsageError("init data belong to evidence; with a token there is none")
        token = read_text(attestation_token_file, "the attestation token").strip()
        jwt.header_of(token)
    guest = _Guest(insecure_sample, key, given, token, oldest_protocol)
    data = guest.run(context.obj, lambda client: client.get_resource(uri))
    text = base64.b64encode(data).decode("ascii")
    common.emit({"path": path, "resource": text}, lambda: print(text), as_json=as_json)  # noqa: T201


@app.command("token-keys")
def token_keys(context: typer.Context, *, as_json: common.JsonFlag = False) -> None:
    """Print the keys that verify the KBS's tokens: a JWK set, for whoever is to trust them."""
    found: JsonObject = run_admin(context.obj, lambda kbs: kbs.token_keys())
    common.emit(found, lambda: print(json.dumps(found)), as_json=as_json)  # noqa: T201


@app.command("explain")
def explain(
    context: typer.Context,
    denial: Annotated[str, typer.Argument(metavar="ID", help="As the refused guest was told.")],
    *,
    auth_private_key: admin.AuthPrivateKey = None,
    admin_token_file: admin.AdminTokenFile = None,
    role: admin.Role = None,
    issuer: admin.Issuer = None,
    audience: admin.Audience = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Say why the KBS refused something: every check that did not hold."""
    where: Connection = context.obj
    proof = admin.credentials(auth_private_key, admin_token_file, role, issuer, audience)
    found: JsonObject = run_admin(where.as_admin(proof), lambda kbs: kbs.explain(denial))
    common.emit(found, lambda: _show_denial(found), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Guest:
    """How we prove ourselves to a KBS."""

    insecure_sample: bool
    key: TeeKeyPair | None = None
    init_data: InitData | None = None
    token: str | None = None
    oldest: Generation | None = None

    def run(self, connection: Connection, work: Callable[[KbsClient], Awaitable[T]]) -> T:
        """Do something as guest, and return what it returns."""

        async def run() -> T:
            async with KbsClient(
                connection.url,
                await self._source(),
                ca_file=connection.cert_file,
                key=self.key,
                init_data=self.init_data,
                oldest=self.oldest,
            ) as client:
                patience = Patience(
                    BUSY_SECONDS, tell=_tell, worth=lambda e: isinstance(e, TooManyRequestsError)
                )
                return await patience.ask(lambda: work(client))

        with common.stderr.status(f"attesting to the KBS at {connection.url}"):
            return common.run_async(run())

    async def _source(self) -> EvidenceSource | TokenSource:
        if self.token is not None and self.key is not None:
            return _Passport(self.token, self.key)
        # As in Trustee's client: any value asks for it, even an empty one.
        device = "ENABLE_SAMPLE_DEVICE" in os.environ
        return await detect(insecure_sample=self.insecure_sample, sample_device=device)


def _tell(wait: Wait) -> None:
    common.stderr.print(f"{wait.error.message}; {wait}", markup=False, style="dim")


@dataclass(frozen=True, slots=True)
class _Passport:
    """A token that somebody gave us, and its key."""

    token: str
    key: TeeKeyPair

    async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
        """Return the token, once."""
        if refused:
            raise AuthenticationError(
                f"the KBS at {url} does not accept the attestation token",
                hint="it is valid for minutes, and only where its issuer is trusted",
            )
        return AgentToken(self.token, self.key.pem().decode("ascii"))


def _tee_key(file: Path | None) -> TeeKeyPair | None:
    if file is None:
        return None
    with common.reading(ConfigError, FormatError, path=file):
        return TeeKeyPair.from_pem(read_file(file, "the TEE's private key", limit=2**16))


def _init_data(text: str | None, file: Path | None) -> InitData | None:
    if text is not None and file is not None:
        raise UsageError("INIT_DATA and --initdata exclude each other")
    if file is not None:
        text = read_text(file, "the init data")
    if text is None:
        return None
    return InitData("json" if text.lstrip().startswith("{") else "toml", text)


def _resource(path: str) -> ResourceUri:
    if "://" in path:
        return ResourceUri.parse(path)
    return ResourceUri.parse(ResourcePath.parse(path.lstrip("/")).uri)


def _show_denial(denial: JsonObject) -> None:
    for line in denials.lines(denial):
        common.stdout.print(line)


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
