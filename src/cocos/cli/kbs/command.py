# SPDX-License-Identifier: Apache-2.0
"""kbs: the key broker service, with the attestation service inside."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from cocos._clock import system_clock
from cocos.attestation_service.policies import attestation_policies
from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.kbs import token_keys
from cocos.cli.kbs.attestation import appraiser
from cocos.cli.kbs.compose import admin_gate, compose
from cocos.cli.kbs.reviewing import reviewing
from cocos.cli.kbs.storage import opened, rekey_command, sweeping, without_password
from cocos.cli.kbs.tracing import tracing
from cocos.host.policies.workers import PolicyWorkers
from cocos.kbs.config import BUILTIN, MAKERS, Settings
from cocos.stores.policies import StoredPolicies
from cocos.transport.http_server import serve_http

NAME = "kbs"
# The last two are Trustee's: they count where its storage section asks for such a server.
ENVIRONMENT = {
    "storage": "KBS_STORAGE",
    "session_storage": "KBS_SESSION_STORAGE",
    "storage_key": "KBS_STORAGE_KEY",
    "POSTGRES_URL": "POSTGRES_URL",
    "REDIS_URL": "REDIS_URL",
}

_log = structlog.get_logger(__name__)

app = common.make_app("Key broker service.")


def _option(text: str, *names: str, **more: Any) -> Any:
    """Describe an option; settings come from several places, so that None means not given."""
    return typer.Option(*names, help=text, show_default=False, **more)


Config = Annotated[
    Path | None,
    _option(
        "Settings, as TOML or .json; Trustee's files work, too.",
        "-c",
        "--config-file",
        "--config",
        envvar="KBS_CONFIG_FILE",
    ),
]
Sockets = Annotated[
    list[str] | None,
    _option(
        "Address to listen on, HOST:PORT; repeatable. [default: 0.0.0.0:8080, 127.0.0.1:8080 with "
        "--insecure-api]",
        "-s",
        "--socket",
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        envvar="COCOS_LOG_LEVEL",
        help="debug, info, warning or error. [default: RUST_LOG's, or info]",
    ),
]
InsecureHttp = Annotated[bool | None, _option("Serve plain HTTP.", "--insecure-http")]
Certificate = Annotated[Path | None, _option("HTTPS: certificate chain, as PEM.")]
PrivateKey = Annotated[
    Path | None, _option("HTTPS: its private key, as PEM.", "-p", "--private-key")
]
AuthPublicKey = Annotated[Path | None, _option("The administrator's Ed25519 public key, as PEM.")]
InsecureApi = Annotated[
    bool | None,
    _option("Let everybody administer, on loopback unless --socket.", "-i", "--insecure-api"),
]
TokenType = Annotated[str | None, _option("Kind of attestation token: CoCo.")]
AttestationBy = Annotated[
    str | None,
    _option(
        "Who appraises evidence: builtin, a server (https://HOST:PORT, http://HOST:PORT, "
        "unix:/PATH), or none: guests bring tokens of others. [default: builtin]",
        "--attestation",
    ),
]
InsecureAllowSample = Annotated[
    bool | None,
    _option(
        "Count sample evidence, which proves nothing; for trying things out.",
        "--insecure-allow-sample",
    ),
]
InsecureTrustRoot = Annotated[
    list[str] | None,
    _option(
        "Believe this root (PEM) instead of the one of a maker of processors, NAME: "
        f"{', '.join(MAKERS)}. Whoever has its key makes any evidence; for trials, refused by "
        "the default policy; repeatable.",
        "--insecure-trust-root",
        metavar="NAME=FILE",
    ),
]
TpmEkCa = Annotated[
    list[Path] | None,
    _option(
        "Believe the TPMs of a manager's VMs, whose host so vouches for what they ran: as "
        "PEM, which "
        "cocos-manager tpm-ca prints; repeatable.",
        "--tpm-ek-ca",
    ),
]
TpmVendorCa = Annotated[
    list[Path] | None,
    _option(
        "Believe TPMs of this vendor, as PEM; repeatable. Anybody can buy one: also needs "
        "--tpm-ek-allow, and reference values of PCR 0 and 7.",
        "--tpm-vendor-ca",
    ),
]
TpmEkAllow = Annotated[
    list[Path] | None,
    _option(
        "Fingerprints of the endorsement keys of a vendor's TPMs that count, one a line; "
        "repeatable. More of them: kbs-client config set-tpm-eks.",
        "--tpm-ek-allow",
    ),
]
Timeout = Annotated[
    int | None, _option("Lifetime of a session, in minutes. [default: 5]", "-t", "--timeout")
]
Storage = Annotated[
    str | None,
    _option(
        "Folder, sqlite:////FILE or postgresql://USER@HOST/DB. [env var: KBS_STORAGE; "
        "default: a folder of the "
        "user]"
    ),
]
SessionStorage = Annotated[
    str | None,
    _option(
        "Sessions in Redis: rediss://HOST:PORT. [env var: KBS_SESSION_STORAGE; default: "
        "with the storage]",
        "--session-storage",
    ),
]
OldestProtocol = Annotated[
    str | None,
    _option("Refuse guests that speak an older one: 0.1.1, 0.2.0 or 0.4.0. [default: 0.1.1]"),
]
AuthRate = Annotated[
    int | None,
    _option("Handshakes per second that one client address may begin; 0: no limit. [default: 30]"),
]
DenialStatus = Annotated[
    int | None,
    _option(
        "Answer 401, as Trustee does, when a policy says no; its guests then try "
        "again. [default: 403]"
    ),
]
TrustedProxy = Annotated[
    list[str] | None,
    _option(
        "Believe X-Forwarded-For of proxies in this network (loopback: always); repeatable.",
        "--trusted-proxy",
    ),
]


StorageKey = Annotated[
    list[str] | None,
    _option(
        "The key that opens the storage: file:PATH, env:VARIABLE, tpm:PATH or a PKCS#11 URI; "
        "repeatable, to name older ones. [default: storage.key beside the storage, made "
        "when it is]",
        "--storage-key",
    ),
]


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    *,
    config_file: Config = None,
    sockets: Sockets = None,
    insecure_http: InsecureHttp = None,
    certificate: Certificate = None,
    private_key: PrivateKey = None,
    auth_public_key: AuthPublicKey = None,
    insecure_api: InsecureApi = None,
    attestation_token_type: TokenType = None,
    attestation: AttestationBy = None,
    insecure_allow_sample: InsecureAllowSample = None,
    insecure_trust_root: InsecureTrustRoot = None,
    tpm_ek_ca: TpmEkCa = None,
    tpm_vendor_ca: TpmVendorCa = None,
    tpm_ek_allow: TpmEkAllow = None,
    timeout: Timeout = None,
    storage: Storage = None,
    session_storage: SessionStorage = None,
    storage_key: StorageKey = None,
    oldest_protocol: OldestProtocol = None,
    auth_rate: AuthRate = None,
    denial_status: DenialStatus = None,
    trusted_proxies: TrustedProxy = None,
    log_level: LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Release keys to machines that prove what they are; serve until SIGTERM.

    KBS protocols 0.4.0, 0.2.0 and 0.1.1 over HTTPS, below /kbs/v0; /healthz and /metrics
    beside it.
    """
    common.configure_logs(level_of_logs(log_level), debug=debug)
    flags: dict[str, object] = {
        "sockets": sockets or None,
        "insecure_http": insecure_http,
        "certificate": certificate,
        "private_key": private_key,
        "auth_public_key": auth_public_key,
        "insecure_api": insecure_api,
        "attestation_token_type": attestation_token_type,
        "attestation": attestation,
        "insecure_allow_sample": insecure_allow_sample,
        "insecure_trust_root": insecure_trust_root or None,
        **_tpms(tpm_ek_ca, tpm_vendor_ca, tpm_ek_allow),
        "timeout": timeout,
        **_places(storage, session_storage, storage_key),
        "oldest_protocol": oldest_protocol,
        **_strangers(auth_rate, denial_status, trusted_proxies),
    }
    settings = common.load_settings(
        Settings, file=config_file, environment=ENVIRONMENT, flags=flags
    )
    context.obj = settings
    if context.invoked_subcommand is not None:
        return
    settings.check()
    common.run_async(_serve(settings, as_json=as_json))


def _tpms(
    cas: list[Path] | None, vendors: list[Path] | None, allowed: list[Path] | None
) -> dict[str, object]:
    return {
        "tpm_ek_ca": cas or None,
        "tpm_vendor_ca": vendors or None,
        "tpm_ek_allow": allowed or None,
    }


def _places(storage: str | None, sessions: str | None, keys: list[str] | None) -> dict[str, object]:
    return {
        "storage": without_password(storage, "--storage", "KBS_STORAGE, PGPASSWORD or ~/.pgpass"),
        "session_storage": without_password(sessions, "--session-storage", "KBS_SESSION_STORAGE"),
        "storage_key": keys or None,
    }


def _strangers(
    rate: int | None, denial: int | None, proxies: list[str] | None
) -> dict[str, object]:
    return {"auth_rate": rate, "denial_status": denial, "trusted_proxies": proxies or None}


async def _serve(settings: Settings, *, as_json: bool) -> None:
    gate = admin_gate(settings, system_clock)
    _warn(settings)
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(opened(settings))
        engine = await stack.enter_async_context(PolicyWorkers())
        traces = await stack.enter_async_context(tracing(NAME))
        attestation = await stack.enter_async_context(appraiser(settings, clock=system_clock))
        policies: list[StoredPolicies] = []
        if settings.attestation == BUILTIN:
            policies.append(attestation_policies(storage.store, engine))
        web = await compose(
            settings,
            storage,
            gate,
            engine,
            clock=system_clock,
            attestation=attestation,
            tracing=traces,
            policies=policies.append,
        )
        asgi = traces.app(web) if traces else web
        await stack.enter_async_context(sweeping(storage.store))
        await stack.enter_async_context(reviewing(policies))
        for address in settings.addresses:
            listening = await stack.enter_async_context(serve_http(asgi, address, tls=settings.tls))
            common.announce(NAME, listening, as_json=as_json)
        await common.wait_for_signal()


def _warn(settings: Settings) -> None:
    if settings.insecure_api:
        _log.warning(
            "kbs.INSECURE-API",
            meaning="everybody who reaches this port can read policies and replace keys",
            sockets=settings.addresses,
        )
    for note in settings.notes:
        _log.warning("kbs.setting-without-effect", setting=note)
    if settings.insecure_http:
        _log.warning("kbs.insecure-http", meaning="sessions and admin tokens travel in clear")


app.command("rekey")(rekey_command)
app.add_typer(token_keys.app, name="token-key")


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
