# SPDX-License-Identifier: Apache-2.0
"""confidential-data-hub: resources and sealed secrets for the programs of this guest."""

import contextlib
import os
from typing import Annotated

import structlog
import typer

from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.guest import _settings as guest
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.resources import KbsResources, ResourceSource
from cocos.confidential_data_hub import credentials
from cocos.confidential_data_hub.config import ConfigFile, Settings
from cocos.confidential_data_hub.server import services
from cocos.confidential_data_hub.service import DataHub
from cocos.host.offline_fs import OfflineResources
from cocos.keyprovider.server import service
from cocos.keyprovider.service import KeyProvider
from cocos.wire.aa_kbc_params import OFFLINE

NAME = "confidential-data-hub"

app = common.make_app(
    "Fetch resources, open sealed secrets and unwrap layer keys for the programs of this "
    "machine, by attestation. For programs of this machine only."
)

_log = structlog.get_logger(__name__)


@app.command()
def main_command(
    *,
    config_file: guest.ConfigFile = None,
    socket: Annotated[
        str | None,
        typer.Option(
            "-s",
            "--socket",
            metavar="ADDRESS",
            help="Address to listen on: HOST:PORT on loopback or unix:/PATH (gRPC), or "
            "unix:///PATH (ttrpc). [default: unix:///run/confidential-containers/cdh.sock]",
        ),
    ] = None,
    allow_user: guest.AllowUser = None,
    aa: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            envvar="COCOS_AA_ADDRESS",
            help="The attestation agent. [default: the file's, or 127.0.0.1:50002]",
        ),
    ] = None,
    insecure_unverified: Annotated[
        bool,
        typer.Option(
            "--insecure-skip-sealed-secret-verification",
            help="Take sealed secrets from anybody: the host chooses what they say.",
        ),
    ] = False,
    insecure_ctr: Annotated[
        bool,
        typer.Option("--insecure-ctr", help="Take A256CTR, too, which shows no change."),
    ] = False,
    log_level: guest.LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM.

    The file's [kbc] names the KBS, or AA_KBC_PARAMS=cc_kbc::URL; offline_fs_kbc takes
    resources from files of this machine instead.
    """
    file = common.load_settings(ConfigFile, file=config_file, flags={"socket": socket})
    listed = [each.model_dump() for each in file.credentials]
    settings = common.load_settings(
        Settings,
        members={
            **dict(file),
            "credentials": [*listed, *credentials.of_command_line(guest.command_line())],
            **guest.members(),
        },
        flags={
            **({} if aa is None else {"aa": {"aa_socket": aa}}),
            "allow_users": allow_user,
            "insecure_skip_sealed_secret_verification": insecure_unverified,
            "insecure_ctr": insecure_ctr,
        },
    )
    common.configure_logs(level_of_logs(log_level, settings.log.level), debug=debug)
    common.run_async(_serve(settings, as_json=as_json))


async def _serve(settings: Settings, *, as_json: bool) -> None:
    os.umask(0o077)  # callers get secrets: nobody else may open our socket
    if settings.image:
        _log.warning("config.without-effect", setting="image", problem="no images are pulled here")
    async with contextlib.AsyncExitStack() as stack:
        resources = await _resources(settings, stack)
        hub = DataHub(
            resources,
            keys=settings.sealed_secret_keys,
            insecure_unverified=settings.insecure_skip_sealed_secret_verification,
            insecure_ctr=settings.insecure_ctr,
        )
        provider = KeyProvider(resources=resources, insecure_ctr=settings.insecure_ctr)
        await credentials.write(settings.credentials, resources)
        address = await stack.enter_async_context(
            guest.serve(settings.socket, [*services(hub), service(provider)], settings.allow_users)
        )
        common.announce(NAME, address, as_json=as_json)
        await common.wait_for_signal()


async def _resources(settings: Settings, stack: contextlib.AsyncExitStack) -> ResourceSource:
    source = settings.source()
    if source is not None and source.kbc == OFFLINE:
        return OfflineResources(settings.offline_files)
    agent = await stack.enter_async_context(AttestationAgent(settings.aa.aa_socket))
    return await stack.enter_async_context(
        KbsResources(
            agent,
            url=None if source is None or source.kbs is None else str(source.kbs),
            patience=settings.retry_seconds,
        )
    )


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
