# SPDX-License-Identifier: Apache-2.0
"""api-server-rest: the guest's agents as HTTP, on loopback."""

import contextlib
from typing import Annotated

import typer

from cocos.api_server_rest.app import Api
from cocos.api_server_rest.config import Features, Settings
from cocos.cli import _common as common
from cocos.cli._log_level import level_of_logs
from cocos.cli.guest import _settings as guest
from cocos.clients.attestation_agent import AttestationAgent
from cocos.clients.data_hub import DataHub
from cocos.transport.http_server import serve_http
from cocos.transport.local_callers import LocalCallers

NAME = "api-server-rest"

app = common.make_app(
    "Serve resources, evidence, tokens and measurements as HTTP to programs of this machine."
)


@app.command()
def main_command(
    *,
    bind: Annotated[
        str | None,
        typer.Option(
            "--socket",
            "-b",
            "--bind",
            metavar="HOST:PORT",
            help="Address to listen on, of loopback. [default: 127.0.0.1:8006]",
        ),
    ] = None,
    features: Annotated[
        Features | None,
        typer.Option("-f", "--features", help="What to serve. [default: resource]"),
    ] = None,
    cdh_addr: Annotated[
        str | None,
        typer.Option(
            "--cdh",
            "-c",
            "--cdh_addr",
            "--cdh-addr",
            metavar="ADDRESS",
            help="The confidential data hub. "
            "[default: unix:///run/confidential-containers/cdh.sock]",
        ),
    ] = None,
    aa_addr: Annotated[
        str | None,
        typer.Option(
            "--aa",
            "-a",
            "--aa_addr",
            "--aa-addr",
            metavar="ADDRESS",
            envvar="COCOS_AA_ADDRESS",
            help="The attestation agent. [default: 127.0.0.1:50002]",
        ),
    ] = None,
    allow_user: guest.AllowUser = None,
    log_level: guest.LogLevel = None,
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM: /cdh/resource/…, /aa/token, /aa/evidence, /aa/aael, /info."""
    settings = common.load_settings(
        Settings,
        flags={
            "bind": bind,
            "features": features,
            "cdh_addr": cdh_addr,
            "aa_addr": aa_addr,
            "allow_users": allow_user,
        },
    )
    common.configure_logs(level_of_logs(log_level), debug=debug)
    common.run_async(_serve(settings, as_json=as_json))


async def _serve(settings: Settings, *, as_json: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        agent = hub = None
        if settings.features is not Features.RESOURCE:
            agent = await stack.enter_async_context(AttestationAgent(settings.aa_addr))
        if settings.features is not Features.ATTESTATION:
            hub = await stack.enter_async_context(DataHub(settings.cdh_addr))
        callers = LocalCallers.of(settings.allow_users)
        api = Api(agent=agent, hub=hub, callers=callers)
        url = await stack.enter_async_context(serve_http(api.app(), settings.bind))
        common.announce(NAME, url, as_json=as_json)
        await common.wait_for_signal()


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
