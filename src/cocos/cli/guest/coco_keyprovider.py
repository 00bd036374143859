# SPDX-License-Identifier: Apache-2.0
"""coco-keyprovider: wraps and unwraps the layer keys of encrypted images for Skopeo."""

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from cocos._clock import system_clock
from cocos.attesters import detect
from cocos.cli import _admin as admin
from cocos.cli import _common as common
from cocos.cli._daemon import daemonize, runtime_folder
from cocos.cli._log_level import level_of_logs
from cocos.cli.guest import _settings as guest
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.kbs import EvidenceSource, TokenSource
from cocos.clients.resources import KbsResources, ResourceSource
from cocos.errors import ConfigError, FormatError, UsageError
from cocos.host.files import read_file
from cocos.host.key_folder import KeyFolder
from cocos.host.offline_fs import OfflineResources
from cocos.keyprovider.config import AGENT_ADDRESS, Settings
from cocos.keyprovider.server import service
from cocos.keyprovider.service import KeyProvider
from cocos.wire.kbs.protocol import InitData

if TYPE_CHECKING:
    from cocos.keyprovider.registration import Registrar

NAME = "coco-keyprovider"
ENVIRONMENT = {
    "aa": "COCOS_AA_ADDRESS",
    "insecure_sample": "COCOS_INSECURE_SAMPLE",
}
MAX_INPUT_BYTES = 4 * 2**20

_log = structlog.get_logger(__name__)

app = common.make_app(
    "Wrap and unwrap the layer keys of encrypted images: ocicrypt's key provider. gRPC, for "
    "programs of this machine only; `once` answers one request on standard input."
)


Socket = Annotated[
    str | None,
    typer.Option(
        "-s",
        "--socket",
        metavar="ADDRESS",
        help="Address to listen on: HOST:PORT on loopback or unix:/PATH (gRPC), or unix:///PATH "
        "(ttrpc). [default: 127.0.0.1:50011]",
    ),
]
Kbs = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The KBS, with #token-key=, #cert-sha256= or #ca= that it is known by; without, "
        "whoever answers at http:// is believed. [env var: AA_KBC_PARAMS=cc_kbc::URL]",
    ),
]
KbsCa = Annotated[
    Path | None,
    typer.Option(
        help="The only CA to trust for KBSs at https:// that are known by nothing else, as PEM."
    ),
]
AuthPrivateKey = Annotated[
    Path | None,
    typer.Option(
        "-a",
        "--auth-private-key",
        help="Ed25519 key of the KBS's administrator, as PEM: make and register keys that the "
        "KBS does not have. Needs --key-policy. [env var: KBS_AUTH_PRIVATE_KEY, with --key-policy]",
    ),
]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option(
        help="Instead of that key, a token of the administrator. [env var: KBS_ADMIN_TOKEN_FILE]"
    ),
]
Role = Annotated[
    str | None,
    typer.Option(
        "--role",
        help="Claim role of tokens that are made. [env var: KBS_ADMIN_ROLE; default: admin]",
    ),
]
Issuer = Annotated[
    str | None, typer.Option("--issuer", help="Their claim iss. [env var: KBS_ADMIN_ISSUER]")
]
Audience = Annotated[
    str | None, typer.Option("--audience", help="Their claim aud. [env var: KBS_ADMIN_AUDIENCE]")
]
KeyPolicy = Annotated[
    Path | None,
    typer.Option(
        help="Who may get the keys that are made here: the policy that each gets, Rego. "
        "cocos-cli policy prints one."
    ),
]
Keys = Annotated[
    Path | None,
    typer.Option(help="Folder of your own keys, files named like resource paths."),
]
Agent = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The attestation agent. [env var: COCOS_AA_ADDRESS; default: 127.0.0.1:50002]",
    ),
]
InitDataToml = Annotated[
    Path | None,
    typer.Option(
        "--initdata",
        "--initdata-toml",
        help="Init data for sample evidence; an attestation agent has its own.",
    ),
]
InsecureSample = Annotated[
    bool | None,
    typer.Option(
        "--insecure-sample",
        help="Without an attestation agent, send sample evidence, which proves nothing; "
        "allow the well-known sample key. [env var: COCOS_INSECURE_SAMPLE]",
    ),
]
InsecureCtr = Annotated[
    bool | None,
    typer.Option(
        "--insecure-ctr",
        help="Take A256CTR, too: whoever stores such an image can change its layer keys, and "
        "learn them so.",
    ),
]


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    *,
    socket: Socket = None,
    kbs: Kbs = None,
    kbs_ca: KbsCa = None,
    auth_private_key: AuthPrivateKey = None,
    admin_token_file: AdminTokenFile = None,
    role: Role = None,
    issuer: Issuer = None,
    audience: Audience = None,
    key_policy: KeyPolicy = None,
    keys: Keys = None,
    aa: Agent = None,
    initdata_toml: InitDataToml = None,
    insecure_sample: InsecureSample = None,
    insecure_ctr: InsecureCtr = None,
    allow_user: guest.AllowUser = None,
    config_file: guest.ConfigFile = None,
    daemon: Annotated[
        bool,
        typer.Option(
            "-d",
            "--daemon",
            help="Go into the background once it answers; process id and output go to "
            "/run/confidential-containers.",
        ),
    ] = False,
    log_level: guest.LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM, unless a command follows."""
    settings = common.load_settings(
        Settings,
        file=config_file,
        members=guest.members(),
        environment=ENVIRONMENT | (admin.ENVIRONMENT if key_policy else {}),
        flags={
            "socket": socket,
            "kbs": kbs,
            "kbs_ca": kbs_ca,
            **_made(auth_private_key, admin_token_file, role, issuer, audience, key_policy, keys),
            "aa": aa,
            "initdata_toml": initdata_toml,
            "insecure_sample": insecure_sample,
            "allow_users": allow_user,
            "insecure_ctr": insecure_ctr,
        },
    )
    if context.invoked_subcommand is not None:
        # Whatever we write to standard error becomes part of Skopeo's message.
        common.configure_logs("error", debug=debug)
        context.obj = settings
        return
    common.configure_logs(level_of_logs(log_level), debug=debug)
    ready = daemonize(runtime_folder(), "coco_keyprovider") if daemon else None
    common.run_async(_serve(settings, ready, as_json=as_json))


def _made(*given: Path | str | None) -> dict[str, object]:
    # Variables count only with a policy for keys: who exports them for kbs-client does not ask
    # every key provider to make keys.
    return dict(zip((*admin.ENVIRONMENT, "key_policy", "keys"), given, strict=True))


@app.command("once")
def once(context: typer.Context) -> None:
    """Answer one request of ocicrypt on standard input; its command form."""
    settings: Settings = context.obj
    if settings.auth_private_key is not None or settings.admin_token_file is not None:
        # Skopeo starts one process per layer: two could make two keys of one name.
        raise UsageError(
            "`once` does not make keys", hint="make the key first: cocos-cli encrypt does"
        )
    document = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(document) > MAX_INPUT_BYTES:
        raise FormatError(f"the request is larger than {MAX_INPUT_BYTES} bytes")
    reply = common.run_async(_answer(settings, document))
    sys.stdout.buffer.write(reply)
    sys.stdout.buffer.flush()


async def _answer(settings: Settings, document: bytes) -> bytes:
    async with _provider(settings) as provider:
        return await provider.answer(document)


async def _serve(settings: Settings, ready: Callable[[], None] | None, *, as_json: bool) -> None:
    os.umask(0o077)  # callers get layer keys: nobody else may open our socket
    async with (
        _provider(settings) as provider,
        guest.serve(settings.socket, [service(provider)], settings.allow_users) as address,
    ):
        kbs = settings.address or "the one that a request names"
        files = " ".join(map(str, settings.offline_files)) if settings.offline else None
        _log.info("keys.from", folder=settings.keys and str(settings.keys), other=files or kbs)
        common.announce(NAME, address, as_json=as_json)
        if ready is not None:
            ready()
        await common.wait_for_signal()


@contextlib.asynccontextmanager
async def _provider(settings: Settings) -> AsyncIterator[KeyProvider]:
    async with contextlib.AsyncExitStack() as stack:
        yield KeyProvider(
            folder=None if settings.keys is None else KeyFolder(settings.keys),
            resources=await _resources(settings, stack),
            registrar=_registrar(settings),
            insecure_sample=settings.insecure_sample,
            insecure_ctr=settings.insecure_ctr,
        )


async def _resources(settings: Settings, stack: contextlib.AsyncExitStack) -> ResourceSource:
    if settings.offline:
        return OfflineResources(settings.offline_files)
    source = await stack.enter_async_context(_source(settings))
    resources = KbsResources(
        source,
        url=settings.address,
        ca_file=settings.kbs_ca,
        init_data=_init_data(settings),
        what="key",
    )
    return await stack.enter_async_context(resources)


@contextlib.asynccontextmanager
async def _source(settings: Settings) -> AsyncIterator[EvidenceSource | TokenSource]:
    if settings.aa is None and settings.insecure_sample:
        yield await detect(insecure_sample=True)
        return
    async with AttestationAgent(settings.aa or AGENT_ADDRESS) as agent:
        yield agent


def _registrar(settings: Settings) -> "Registrar | None":
    proof = admin.credentials(
        settings.auth_private_key,
        settings.admin_token_file,
        settings.admin_role,
        settings.admin_issuer,
        settings.admin_audience,
        look=False,
    )
    if not proof or settings.address is None:
        return None
    if settings.key_policy is None:
        raise UsageError(
            "nothing says who may get the keys that are made here",
            hint="--key-policy FILE; cocos-cli policy prints one: --for MANIFEST, --for-image "
            "FOLDER, --for-algorithm DIGEST, or --any-computation",
        )
    # A guest, which never comes here, has no such modules.
    from cocos.keyprovider.registration import Binding, Registrar  # noqa: PLC0415

    policy = read_file(settings.key_policy, "the policy of new keys", limit=2**18)
    if not policy.isascii():
        raise ConfigError(f"{settings.key_policy} is not ASCII text")
    return Registrar(
        settings.address,
        credentials=proof,
        clock=system_clock,
        binding=Binding(policy.decode("ascii")),
        ca_file=settings.kbs_ca,
    )


def _init_data(settings: Settings) -> InitData | None:
    path = settings.initdata_toml
    if path is None:
        return None
    if settings.aa is not None or not settings.insecure_sample:
        raise UsageError(
            "with an attestation agent it is the agent that is told the init data",
            hint="give --initdata to attestation-agent",
        )
    return guest.read_init_data(path)[0]


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)


if __name__ == "__main__":
    main()
