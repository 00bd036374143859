# SPDX-License-Identifier: Apache-2.0
"""attestation-agent: makes evidence and fetches tokens for the programs of this machine."""

import contextlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cocos.attestation_agent.coco_as import CocoAsTokens
from cocos.attestation_agent.config import ConfigFile, Settings
from cocos.attestation_agent.event_log import EventLog
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.reported_log import ReportedLog
from cocos.attestation_agent.server import service
from cocos.attestation_agent.service import AttestationAgent
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import Attester, Devices, detect
from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.guest import _settings as guest
from cocos.clients.attestation_rest import RestAttestationService
from cocos.clients.attestation_service import AttestationServiceClient, Place
from cocos.clients.cvms import Tls
from cocos.clients.kbs import KbsClient
from cocos.crypto.tee_key import EC_P256
from cocos.errors import PeerError, UnsupportedError
from cocos.host import tpm
from cocos.host.devices import processors
from cocos.host.files import read_certificates
from cocos.wire.json import b64decode
from cocos.wire.kbs.protocol import InitData

NAME = "attestation-agent"
ENVIRONMENT = {
    "aael_path": "AAEL_PATH",
    "command_line": "COCOS_COMMAND_LINE",
    "insecure_sample": "COCOS_INSECURE_SAMPLE",
    "tpm": "AA_TPM_DEVICE",
    "tpm_ak_handle": "AA_TPM_AK_HANDLE",
    "tpm_event_log": "COCOS_TPM_EVENT_LOG",
}

app = common.make_app(
    "Answer for this machine: evidence of its TEE, tokens of its KBS, runtime measurements. "
    "gRPC, for programs of this machine only."
)

_log = structlog.get_logger(__name__)

InitDataFile = Annotated[
    Path | None,
    typer.Option("--initdata", "--initdata-toml", "-t", help="Init data; wins over the digest."),
]


@app.command()
def main_command(
    *,
    attestation_sock: Annotated[
        str | None,
        typer.Option(
            "--socket",
            "-a",
            "--attestation_sock",
            "--attestation-sock",
            metavar="ADDRESS",
            help="Address to listen on: HOST:PORT on loopback or unix:/PATH (gRPC), or "
            "unix:///PATH (ttrpc). [default: 127.0.0.1:50002]",
        ),
    ] = None,
    config_file: guest.ConfigFile = None,
    allow_user: guest.AllowUser = None,
    initdata_digest: Annotated[
        str | None,
        typer.Option("-i", "--initdata-digest", help="Digest of the init data, as base64."),
    ] = None,
    initdata_toml: InitDataFile = None,
    insecure_sample: Annotated[
        bool | None,
        typer.Option(
            "--insecure-sample",
            help="If no TEE is found, make sample evidence, which proves nothing. "
            "[env var: COCOS_INSECURE_SAMPLE]",
        ),
    ] = None,
    log_level: guest.LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM. AA_KBC_PARAMS=cc_kbc::URL names the KBS that makes tokens.

    With #token-key=, #cert-sha256= or #ca= the URL says what the KBS is known by. The
    configuration file may only name the same one.

    The TPM is /dev/tpmrm0 or AA_TPM_DEVICE; runtime events are logged at AAEL_PATH.
    ENABLE_SAMPLE_DEVICE, whatever its value, adds evidence of a device that does not exist.
    """
    file = common.load_settings(ConfigFile, file=config_file, flags={})
    settings = common.load_settings(
        Settings,
        members={**dict(file), "aa_kbc_params": guest.aa_kbc_params()},
        environment=ENVIRONMENT,
        flags={
            "attestation_sock": attestation_sock,
            "initdata_digest": initdata_digest,
            "initdata_toml": initdata_toml,
            "allow_users": allow_user,
            "insecure_sample": insecure_sample,
            "sample_device": "ENABLE_SAMPLE_DEVICE" in os.environ,
        },
    )
    common.configure_logs(level_of_logs(log_level, settings.log.level), debug=debug)
    common.run_async(_serve(settings, as_json=as_json))


async def _serve(settings: Settings, *, as_json: bool) -> None:
    os.umask(0o077)  # callers get private keys: nobody else may open our socket
    async with contextlib.AsyncExitStack() as stack:
        attester = await detect(
            await _devices(settings, stack),
            insecure_sample=settings.insecure_sample,
            sample_device=settings.sample_device,
        )
        init_data = await _bind_init_data(settings, attester)
        machine = Machine(attester, await _event_log(settings, attester))
        tokens = await stack.enter_async_context(_tokens(settings, machine, init_data))
        agent = AttestationAgent(machine, tokens, _passports(settings, machine, init_data))
        address = await stack.enter_async_context(
            guest.serve(settings.attestation_sock, [service(agent)], settings.allow_users)
        )
        common.announce(NAME, address, as_json=as_json)
        await common.wait_for_signal()


async def _devices(settings: Settings, stack: contextlib.AsyncExitStack) -> Devices:
    """Return what proves this machine; a TPM only where no processor does."""
    found = processors.find()
    if found.snp is not None or found.tdx is not None:
        return Devices(snp=found.snp, tdx=found.tdx)
    return Devices(tpm=await _tpm(settings, stack))


async def _tpm(settings: Settings, stack: contextlib.AsyncExitStack) -> tpm.Tpm | None:
    """Return the TPM of this machine, if it has one that can be used."""
    tcti = tpm.find(settings.tpm)
    if tcti is None:
        return None
    device = tpm.Tpm(
        tcti,
        boot_log=settings.tpm_event_log,
        command_line=settings.command_line,
        ak_handle=settings.tpm_ak_handle,
    )
    await stack.enter_async_context(device)
    try:
        await device.attestation_key()
    except PeerError as error:
        # A laptop's TPM is no reason against a trial; one that was named is wanted.
        if settings.tpm is not None or not settings.insecure_sample:
            raise
        _log.warning("attester.tpm-unusable", problem=error.message)
        return None
    return device


async def _event_log(settings: Settings, attester: Attester) -> EventLog | None:
    config = settings.eventlog_config
    if not config.enable_eventlog:
        return None
    if config.eventlog_algorithm is not None:
        _log.warning("config.without-effect", setting="eventlog_config.eventlog_algorithm")
    register = attester.default_register if config.init_pcr is None else config.init_pcr
    kind = ReportedLog if attester.events_in_report else EventLog
    log = kind(settings.aael_path, attester, register)
    await log.open()
    return log


def _tokens(settings: Settings, machine: Machine, init_data: InitData | None) -> KbsTokens:
    config = settings.kbs()
    configured = config.address(_ca(config.cert)) if config else None
    algorithm = config.tee_key_algorithm if config else EC_P256

    def open_client(url: str) -> KbsClient:
        return KbsClient(
            url,
            machine,
            init_data=init_data,
            key_algorithm=algorithm,
            generation=lambda: machine.generation,
            oldest=config.oldest_protocol if config else None,
        )

    return KbsTokens(open_client, configured=configured)


def _passports(
    settings: Settings, machine: Machine, init_data: InitData | None
) -> CocoAsTokens | None:
    config = settings.token_configs.coco_as
    if config is None:
        return None
    ca = _ca(config.cert)
    if config.url.startswith(("http://", "https://")):
        open_rest = partial(RestAttestationService, config.url, ca=ca)
        open_rest()  # a URL or a CA that cannot be used is told now
        return CocoAsTokens(machine, open_rest, init_data)
    url = re.sub("^grpc(s?)://", r"http\1://", config.url)
    place = Place.parse(url, None if ca is None else Tls(ca=ca.encode()))
    return CocoAsTokens(machine, partial(AttestationServiceClient, place), init_data)


def _ca(cert: str | None) -> str | None:
    """Return the PEM text of a certificate, which may be given as the path of a file."""
    if cert is None or "-----BEGIN" in cert:
        return cert
    return read_certificates(Path(cert), "the CA certificate").decode("ascii", "ignore")


async def _bind_init_data(settings: Settings, attester: Attester) -> InitData | None:
    """Bind the init data that we were started with, and return it for the KBS."""
    init_data = None
    if settings.initdata_toml is not None:
        init_data, digest = guest.read_init_data(settings.initdata_toml)
    elif settings.initdata_digest is not None:
        digest = b64decode(settings.initdata_digest, "the digest of the init data")
    else:
        return None
    try:
        await attester.bind_init_data(digest)
    except UnsupportedError as error:
        if not attester.insecure:
            raise
        _log.warning("init-data.unbound", problem=error.message)
    return init_data


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
