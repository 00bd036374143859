# SPDX-License-Identifier: Apache-2.0
"""cocos-manager: starts and stops VMs on this host."""

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

from cocos._clock import system_clock
from cocos.cli import _common as common
from cocos.host.machines.swtpm import TpmCa
from cocos.manager.app import make_app
from cocos.manager.backends import BACKENDS, make_backend, other_backends
from cocos.manager.config import DEFAULT_BACKEND, ENVIRONMENT, ManagerConfig
from cocos.manager.server import callers, credentials, grpc_service
from cocos.manager.service import ManagerService
from cocos.manager.state import StateFolder
from cocos.transport.http_server import serve_http
from cocos.transport.rpc import serve

NAME = "cocos-manager"

# Of others who may share our environment: see LogLevel, and cocos-cli agent.
_READ_ELSEWHERE = frozenset(
    {
        "MANAGER_LOG_LEVEL",
        "MANAGER_GRPC_URL",
        "MANAGER_GRPC_SERVER_CA_CERTS",
        "MANAGER_GRPC_CLIENT_CERT",
        "MANAGER_GRPC_CLIENT_KEY",
    }
)

_log = structlog.get_logger(__name__)

app = common.make_app(
    "Start and stop VMs on this host: gRPC API on localhost:7020, /health and /metrics on "
    "localhost:7003."
)


def _option(text: str, *names: str) -> Any:
    """Describe an option; settings come from several places, so that None means not given."""
    return typer.Option(*names, help=text, show_default=False)


Config = Annotated[Path | None, _option("Settings, as TOML.", "-c", "--config-file")]
GrpcHost = Annotated[
    str | None, _option("API: host to listen on. [env var: MANAGER_GRPC_HOST; default: localhost]")
]
GrpcPort = Annotated[
    int | None, _option("API: port, 0: any free one. [env var: MANAGER_GRPC_PORT; default: 7020]")
]
ServerCert = Annotated[
    Path | None,
    _option(
        "API: certificate chain for TLS, as PEM. [env var: MANAGER_GRPC_SERVER_CERT]",
        "--certificate",
        "--server-cert",
    ),
]
ServerKey = Annotated[
    Path | None,
    _option(
        "API: private key, as PEM. [env var: MANAGER_GRPC_SERVER_KEY]",
        "--private-key",
        "--server-key",
    ),
]
ClientCa = Annotated[
    Path | None,
    _option(
        "API: certificates that clients must chain to, as PEM. [env var: "
        "MANAGER_GRPC_CLIENT_CA_CERTS]"
    ),
]
InsecureApi = Annotated[
    bool | None, _option("Let anybody who reaches the API start VMs.", "--insecure-api")
]
AllowUser = Annotated[
    list[str] | None,
    _option(
        "Let this user of the machine use the API without a certificate, too; repeatable. "
        "[default: our own user and root only]",
        "--allow-user",
    ),
]
HttpHost = Annotated[
    str | None,
    _option("Health: host to listen on. [env var: MANAGER_HTTP_HOST; default: localhost]"),
]
HttpPort = Annotated[
    int | None,
    _option("Health: port, 0: any free one. [env var: MANAGER_HTTP_PORT; default: 7003]"),
]
MaxVms = Annotated[
    int | None, _option("Most VMs at a time, 0: no limit. [env var: MANAGER_MAX_VMS; default: 10]")
]
BackendName = Annotated[
    str | None,
    _option(
        f"Kind of VM: {', '.join(BACKENDS)}. [env var: MANAGER_BACKEND; default: {DEFAULT_BACKEND}]"
    ),
]
State = Annotated[
    Path | None,
    _option("Folder of the VMs and of what survives us. [env var: MANAGER_STATE_FOLDER]"),
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar=["MANAGER_LOG_LEVEL", "COCOS_LOG_LEVEL"], help="debug, info, warning or error."
    ),
]


KeepVms = Annotated[
    bool | None,
    _option(
        "Have VMs run on when the manager stops; the next one takes them over "
        "(backend qemu). [env var: MANAGER_KEEP_VMS]",
        "--keep-vms",
    ),
]
ImageFolder = Annotated[
    Path | None, _option("Folder of the VMs' image (backend qemu). [env var: MANAGER_IMAGE_FOLDER]")
]
Memory = Annotated[
    str | None,
    _option(
        "Memory of a VM (backend qemu), such as 4G. [env var: MANAGER_QEMU_MEMORY_SIZE; "
        "default: 2048M]",
        "--memory",
    ),
]
Cpus = Annotated[
    int | None,
    _option("Processors of a VM (backend qemu). [env var: MANAGER_QEMU_SMP_COUNT; default: 2]"),
]
AcceleratorName = Annotated[
    str | None,
    _option(
        "kvm, tcg, or auto: what a probe VM shows. [env var: MANAGER_QEMU_ACCELERATOR; "
        "default: auto]"
    ),
]
AuthorizedKeys = Annotated[
    Path | None,
    _option(
        "SSH keys that debug images let in (backend qemu). [env var: MANAGER_GUEST_AUTHORIZED_KEYS]"
    ),
]


@app.callback(invoke_without_command=True)
def main_command(
    context: typer.Context,
    *,
    config_file: Config = None,
    grpc_host: GrpcHost = None,
    grpc_port: GrpcPort = None,
    server_cert: ServerCert = None,
    server_key: ServerKey = None,
    client_ca: ClientCa = None,
    insecure_api: InsecureApi = None,
    allow_user: AllowUser = None,
    http_host: HttpHost = None,
    http_port: HttpPort = None,
    max_vms: MaxVms = None,
    backend: BackendName = None,
    state_folder: State = None,
    keep_vms: KeepVms = None,
    image_folder: ImageFolder = None,
    memory_mib: Memory = None,
    cpus: Cpus = None,
    accelerator: AcceleratorName = None,
    authorized_keys: AuthorizedKeys = None,
    log_level: LogLevel = "info",
    as_json: common.ServerJsonFlag = False,
    debug: common.DebugFlag = False,
) -> None:
    """Serve until SIGTERM; then every VM of it is stopped, unless it is to be kept."""
    common.configure_logs(log_level, debug=debug)
    flags: dict[str, object] = {
        "grpc_host": grpc_host,
        "grpc_port": grpc_port,
        "server_cert": server_cert,
        "server_key": server_key,
        "client_ca": client_ca,
        "insecure_api": insecure_api,
        "allow_users": allow_user,
        "http_host": http_host,
        "http_port": http_port,
        "max_vms": max_vms,
        "backend": backend,
        "state_folder": state_folder,
        "keep_vms": keep_vms,
        "image_folder": image_folder,
        "memory_mib": memory_mib,
        "cpus": cpus,
        "accelerator": accelerator,
        "authorized_keys": authorized_keys,
    }
    if context.invoked_subcommand is not None:
        context.obj = _Before(config_file, flags, as_json)
        return
    _warn_of_ignored()
    config = common.load_settings(
        ManagerConfig, file=config_file, environment=ENVIRONMENT, flags=flags
    )
    common.run_async(_serve(config, as_json=as_json))


def _warn_of_ignored() -> None:
    """Name variables that look like ours and do nothing; the original has more of them."""
    known = {*ENVIRONMENT.values(), *_READ_ELSEWHERE}
    for name in sorted(set(os.environ) - known):
        if name.startswith(("MANAGER_", "COCOS_JAEGER_")):
            hint = "docs/operate/manager.md has those that count"
            _log.warning("setting.ignored", variable=name, hint=hint)


@dataclass(frozen=True, slots=True)
class _Before:
    """What stood before a subcommand; it holds for that, too."""

    config_file: Path | None
    flags: dict[str, object]
    as_json: bool


@app.command()
def tpm_ca(
    context: typer.Context,
    *,
    config_file: Config = None,
    state_folder: State = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Print the certificate of the CA that certifies the TPMs of our VMs, made if need be.

    Who trusts this host gives it to a KBS: kbs --tpm-ek-ca FILE.
    """
    before: _Before = context.obj
    config = common.load_settings(
        ManagerConfig,
        file=config_file or before.config_file,
        environment=ENVIRONMENT,
        flags={**before.flags, "state_folder": state_folder or before.flags["state_folder"]},
    )
    ca = TpmCa(config.tpm_ca_folder.absolute())
    ca.make(system_clock())
    pem = ca.certificate_file.read_text("ascii")
    result = {"certificate": pem, "file": str(ca.certificate_file)}
    common.emit(result, lambda: typer.echo(pem, nl=False), as_json=as_json or before.as_json)


async def _serve(config: ManagerConfig, *, as_json: bool) -> None:
    backend = make_backend(config)
    await backend.check()
    instance_id = config.instance_id or str(uuid.uuid4())
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(
            ManagerService(
                StateFolder(config.state_folder),
                backend,
                max_vms=config.max_vms,
                keep_vms=config.keep_vms,
                others=other_backends(config),
            )
        )
        http = await stack.enter_async_context(
            serve_http(make_app(service, instance_id=instance_id), config.http_address)
        )
        address = await stack.enter_async_context(
            serve(
                config.grpc_address,
                [grpc_service(service, eos_version=config.eos_version)],
                credentials=credentials(config),
                callers=callers(config),
            )
        )
        common.announce(NAME, address, as_json=as_json)
        common.announce(f"{NAME} health", http, as_json=as_json)
        await common.wait_for_signal()


def main() -> None:
    """Run the program."""
    common.run_app(app, NAME)
