# SPDX-License-Identifier: Apache-2.0
"""grpc-as: the attestation service by itself, for key brokers elsewhere."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import structlog
import typer
from starlette.routing import Route

from cocos._clock import system_clock
from cocos.attestation_service.app import routes as rest_routes
from cocos.attestation_service.config import ServerSettings
from cocos.attestation_service.policies import attestation_policies
from cocos.attestation_service.server import services
from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.kbs.attestation import own_service, service_config
from cocos.cli.kbs.command import (
    InsecureAllowSample,
    InsecureTrustRoot,
    LogLevel,
    TpmEkAllow,
    TpmEkCa,
    TpmVendorCa,
)
from cocos.cli.kbs.reviewing import reviewing
from cocos.cli.kbs.storage import opened, sweeping, without_password
from cocos.host.collateral import CollateralFolder, default_folder
from cocos.host.files import data_folder
from cocos.host.policies.workers import PolicyWorkers
from cocos.kbs.config import Settings
from cocos.kbs.well_known import well_known_routes
from cocos.transport.http_server import serve_http
from cocos.transport.rpc import serve, server_credentials
from cocos.transport.tls_files import TlsFiles
from cocos.transport.web import WebApp, health
from cocos.wire.attestation_rpc import MAX_MESSAGE_BYTES

NAME = "grpc-as"
ENVIRONMENT = {"storage": "AS_STORAGE", "storage_key": "AS_STORAGE_KEY"}

# What Trustee's file has at its top level; a KBS has it in a section.
_TRUSTEE: Final = (
    "attestation_token_broker",
    "policy_engine",
    "rvps_config",
    "verifier_config",
    "work_dir",
)

_log = structlog.get_logger(__name__)

app = common.make_app("Attestation service.")


def _option(text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, show_default=False)


Config = Annotated[
    Path | None,
    _option("Settings, as TOML or .json; Trustee's files work, too.", "-c", "--config-file"),
]
Socket = Annotated[
    str | None,
    _option(
        "Address to listen on, HOST:PORT or unix:/PATH. [default: 127.0.0.1:50004]",
        "-s",
        "--socket",
    ),
]
HttpSocket = Annotated[
    str | None,
    _option(
        "Serve HTTP there, HOST:PORT: the keys that verify tokens at /.well-known/jwks.json, "
        "and without --client-ca, too, POST /attestation as Trustee's restful-as.",
        "--http-socket",
    ),
]
Certificate = Annotated[
    Path | None,
    _option("TLS: certificate chain, as PEM.", "--certificate", "--https-pubkey-cert", "-t"),
]
PrivateKey = Annotated[
    Path | None, _option("TLS: its private key, as PEM.", "--private-key", "--https-prikey", "-k")
]
ClientCa = Annotated[
    Path | None, _option("Serve only whom this CA certified, as PEM; needs TLS.", "--client-ca")
]
InsecureApi = Annotated[
    bool | None,
    _option("Let everybody who reaches the socket replace policies.", "--insecure-api"),
]
InsecureAllowUnboundEvidence = Annotated[
    bool | None,
    _option(
        "Over HTTP take evidence bound to no nonce, which may be a recorded one, as the Rust "
        "attestation agent sends it. No KBS of ours releases anything on such a token.",
        "--insecure-allow-unbound-evidence",
    ),
]
Storage = Annotated[
    str | None,
    _option(
        "Folder, sqlite:////FILE or postgresql://USER@HOST/DB. [env var: AS_STORAGE; "
        "default: a folder of the "
        "user]"
    ),
]
StorageKey = Annotated[
    list[str] | None,
    _option(
        "The key that opens the storage: file:PATH, env:VARIABLE, tpm:PATH or a PKCS#11 URI; "
        "repeatable. [default: storage.key beside the storage, made when it is]",
        "--storage-key",
    ),
]


@app.command()
def main_command(
    *,
    config_file: Config = None,
    socket: Socket = None,
    http_socket: HttpSocket = None,
    https_pubkey_cert: Certificate = None,
    https_prikey: PrivateKey = None,
    client_ca: ClientCa = None,
    insecure_api: InsecureApi = None,
    insecure_allow_sample: InsecureAllowSample = None,
    insecure_allow_unbound_evidence: InsecureAllowUnboundEvidence = None,
    insecure_trust_root: InsecureTrustRoot = None,
    tpm_ek_ca: TpmEkCa = None,
    tpm_vendor_ca: TpmVendorCa = None,
    tpm_ek_allow: TpmEkAllow = None,
    storage: Storage = None,
    storage_key: StorageKey = None,
    log_level: LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Appraise evidence and keep reference values, over gRPC; serve until SIGTERM.

    The services of Trustee's grpc-as and rvps, with health and reflection. A KBS uses it
    with --attestation URL.
    """
    common.configure_logs(level_of_logs(log_level), debug=debug)
    server, service = _split(common.read_settings(config_file) if config_file else {})
    server_settings = common.load_settings(
        ServerSettings,
        members=server,
        flags=_given(
            socket=socket,
            http_socket=http_socket,
            certificate=https_pubkey_cert,
            private_key=https_prikey,
            client_ca=client_ca,
            insecure_api=insecure_api,
            insecure_allow_unbound_evidence=insecure_allow_unbound_evidence,
        ),
    )
    server_settings.check()
    service |= _given(**{name: os.environ.get(place) for name, place in ENVIRONMENT.items()})
    flags = _given(
        insecure_allow_sample=insecure_allow_sample,
        insecure_trust_root=insecure_trust_root or None,
        tpm_ek_ca=tpm_ek_ca or None,
        tpm_vendor_ca=tpm_vendor_ca or None,
        tpm_ek_allow=tpm_ek_allow or None,
        storage=without_password(storage, "--storage", "AS_STORAGE, PGPASSWORD or ~/.pgpass"),
        storage_key=storage_key or None,
    )
    if "storage_backend" not in service | flags:
        service.setdefault("storage", str(data_folder(NAME)))
    settings = common.load_settings(Settings, members=service, flags=flags)
    common.run_async(_serve(server_settings, settings, as_json=as_json))


async def _serve(server: ServerSettings, settings: Settings, *, as_json: bool) -> None:
    if server.insecure_api:
        _log.warning(
            "as.INSECURE-API",
            meaning="everybody who reaches this port can replace policies and reference values",
        )
    if server.insecure_allow_unbound_evidence:
        _log.warning(
            "as.INSECURE-UNBOUND-EVIDENCE",
            meaning="a token may be about evidence that somebody recorded, of any age",
        )
    for note in settings.notes:
        _log.warning("as.setting-without-effect", setting=note)
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(opened(settings))
        engine = await stack.enter_async_context(PolicyWorkers())
        await stack.enter_async_context(sweeping(storage.store))
        policies = [attestation_policies(storage.store, engine)]
        await stack.enter_async_context(reviewing(policies))
        service, keys = own_service(
            settings,
            storage.store,
            engine,
            clock=system_clock,
            collateral=CollateralFolder(default_folder()),
        )
        if server.http_socket is not None:
            issuer = service_config(settings).issuer_name
            routes = [*well_known_routes(keys, issuer=issuer), Route("/healthz", health)]
            if server.client_ca is None:
                unbound = server.insecure_allow_unbound_evidence
                routes += rest_routes(service, insecure_allow_unbound_evidence=unbound)
            url = serve_http(WebApp(routes), server.http_socket, tls=_tls_files(server))
            _log.info("as.http", at=await stack.enter_async_context(url))
        listening = await stack.enter_async_context(
            serve(
                server.socket,
                services(service, keys),
                credentials=_credentials(server),
                max_message_bytes=MAX_MESSAGE_BYTES,
            )
        )
        common.announce(NAME, listening, as_json=as_json)
        await common.wait_for_signal()


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell what the server is told from what the service is told."""
    own = {name: values[name] for name in ServerSettings.model_fields if name in values}
    section = {name: values[name] for name in _TRUSTEE if name in values}
    rest = {n: v for n, v in values.items() if n not in {*own, *section}}
    return own, rest | ({"attestation_service": section} if section else {})


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _tls_files(server: ServerSettings) -> TlsFiles | None:
    if server.certificate is None or server.private_key is None:
        return None
    return TlsFiles(server.certificate, server.private_key)


def _credentials(server: ServerSettings) -> grpc.ServerCredentials | None:
    if server.certificate is None or server.private_key is None:
        return None
    cas = [] if server.client_ca is None else [server.client_ca]
    return server_credentials(server.certificate, server.private_key, cas, "the clients' CA")


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
