# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli agent``: create, list, show, follow and remove VMs through a manager."""

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cocos.cli import _common as common
from cocos.cli._screen import Screen
from cocos.clients.manager import DEFAULT_URL, CvmSummary, ManagerClient, Tls, summary
from cocos.errors import ComputationError, NotFoundError, PeerError, UsageError
from cocos.host.files import read_certificates, read_file
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire.aa_kbc_params import KBS
from cocos.wire.address import parse_cvms

app = common.make_app("Agents: VMs that run a computation, started by a cocos-manager.")

ManagerUrl = Annotated[
    str,
    typer.Option(
        "--manager-url",
        envvar="MANAGER_GRPC_URL",
        help="The manager: http://HOST:7020, https://HOST:7020 or HOST:7020.",
    ),
]
ManagerCa = Annotated[
    Path | None,
    typer.Option(
        envvar="MANAGER_GRPC_SERVER_CA_CERTS",
        help="Certificates that the manager's must chain to, as PEM; switches TLS on.",
    ),
]
ManagerCrt = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        "--manager-crt",
        envvar="MANAGER_GRPC_CLIENT_CERT",
        help="Our certificate for the manager, as PEM.",
    ),
]
ManagerKey = Annotated[
    Path | None,
    typer.Option(
        "--private-key",
        "--manager-key",
        envvar="MANAGER_GRPC_CLIENT_KEY",
        help="Our private key for the manager, as PEM.",
    ),
]
VmId = Annotated[str, typer.Argument(metavar="ID", help="The VM, as create printed it.")]
CvmsUrl = Annotated[
    str,
    typer.Option(
        "--cvms-url",
        "--server-url",
        help="The CVMS that the agent dials: http://HOST:7001 or HOST:7001.",
    ),
]
Ttl = Annotated[str, typer.Option(help="End the VM after that time, such as 90s or 1h30m.")]
GuestLog = Annotated[
    str,
    typer.Option(
        "--agent-log-level",
        "--log-level",
        help="What the agent in the VM logs: debug, info, warning or error.",
    ),
]
ServerCa = Annotated[
    Path | None,
    typer.Option(
        "--cvms-ca", "--server-ca", help="Certificates that the CVMS's must chain to, as PEM."
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--agent-private-key", "--client-key", help="The agent's private key for the CVMS, as PEM."
    ),
]
ClientCrt = Annotated[
    Path | None,
    typer.Option(
        "--agent-certificate", "--client-crt", help="The agent's certificate for the CVMS, as PEM."
    ),
]
KbsParams = Annotated[
    str,
    typer.Option(
        "--kbs",
        "--aa-kbs-params",
        metavar="URL",
        help="The KBS for the guest, and what it is known by: http://HOST:8080#token-key=KID, "
        "https://HOST#cert-sha256=HEX; or cc_kbc:: before it, as the original writes. Without # "
        "the guest believes whoever answers at http://. The manifest may name others.",
    ),
]
RegistryCa = Annotated[
    Path | None,
    typer.Option(help="Certificates of a private CA, as PEM, for registries without credentials."),
]
RegistryCredentials = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="Resource of the KBS with credentials for private registries, as an auth.json; the "
        "VM gets it by its evidence.",
    ),
]
CaUrl = Annotated[str, typer.Option(help="URL of the CA that the agent gets certificates from.")]
AwsKeyId = Annotated[str, typer.Option(help="S3 sources: access key id.")]
AwsSecret = Annotated[
    Path | None,
    typer.Option(
        "--aws-secret-access-key-file",
        help="S3 sources: file with the secret access key (arguments are visible to others).",
    ),
]
AwsEndpoint = Annotated[str, typer.Option(help="S3 sources: endpoint.")]
AwsRegion = Annotated[str, typer.Option(help="S3 sources: region.")]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep",
        help="Have the VM go on when its computation has ended (state done), until it is removed "
        "or its time to live is over.",
    ),
]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait",
        help="Show the VM's console until it ends; fail if it did not end in order, or its "
        "computation failed.",
    ),
]


@app.command()
def create(
    *,
    cvms_url: CvmsUrl,
    manager_url: ManagerUrl = DEFAULT_URL,
    ttl: Ttl = "",
    log_level: GuestLog = "info",
    server_ca: ServerCa = None,
    client_key: ClientKey = None,
    client_crt: ClientCrt = None,
    aa_kbs_params: KbsParams = "",
    registry_ca: RegistryCa = None,
    registry_credentials: RegistryCredentials = "",
    ca_url: CaUrl = "",
    aws_access_key_id: AwsKeyId = "",
    aws_secret_access_key_file: AwsSecret = None,
    aws_endpoint_url: AwsEndpoint = "",
    aws_region: AwsRegion = "",
    keep: Keep = False,
    wait: Wait = False,
    manager_ca: ManagerCa = None,
    manager_crt: ManagerCrt = None,
    manager_key: ManagerKey = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Start a VM whose agent dials a CVMS for its computation; it ends with that."""
    # Other managers hand the address to a dialler that knows no schemes: the CA says TLS.
    request = pb.CreateReq(
        agent_cvm_server_url=str(
            parse_cvms(cvms_url, ca=server_ca is not None, certificate=client_crt is not None)
        ),
        ttl=ttl,
        agent_log_level=log_level,
        agent_cvm_server_ca_cert=_read(server_ca, "the CVMS's CA certificate", read_certificates),
        agent_cvm_client_key=_read(client_key, "the agent's key"),
        agent_cvm_client_cert=_read(client_crt, "the agent's certificate"),
        aa_kbs_params=_kbs_params(aa_kbs_params),
        registry_ca_cert=_read(registry_ca, "the registries' CA certificate", read_certificates),
        registry_credentials=registry_credentials,
        agent_cvm_ca_url=ca_url,
        aws_access_key_id=aws_access_key_id,
        aws_secret_access_key=_read(aws_secret_access_key_file, "the secret access key")
        .decode(errors="replace")
        .strip(),
        aws_endpoint_url=aws_endpoint_url,
        aws_region=aws_region,
        keep=keep,
    )
    client = _client(manager_url, manager_ca, manager_crt, manager_key)
    common.run_async(_create(client, request, wait=wait, as_json=as_json))


@app.command("list")
def list_(
    *,
    manager_url: ManagerUrl = DEFAULT_URL,
    manager_ca: ManagerCa = None,
    manager_crt: ManagerCrt = None,
    manager_key: ManagerKey = None,
    as_json: common.JsonFlag = False,
) -> None:
    """List the VMs that run, and those that ended by themselves with the reason."""

    async def main() -> None:
        async with _client(manager_url, manager_ca, manager_crt, manager_key) as manager:
            vms = await manager.vms()
        common.emit([vm.to_dict() for vm in vms], lambda: _table(vms), as_json=as_json)

    common.run_async(main())


@app.command()
def show(
    vm_id: VmId,
    *,
    manager_url: ManagerUrl = DEFAULT_URL,
    manager_ca: ManagerCa = None,
    manager_crt: ManagerCrt = None,
    manager_key: ManagerKey = None,
    as_json: common.JsonFlag = False,
) -> None:
    """Show one VM: its state, and what it is made of."""

    async def main() -> None:
        async with _client(manager_url, manager_ca, manager_crt, manager_key) as manager:
            info = await manager.info(vm_id)
        facts: dict[str, object] = {
            **(summary(info.cvm).to_dict() if info.HasField("cvm") else {"id": vm_id}),
            "cpus": info.cpu_num,
            "cpu_type": info.cpu_type,
            "ovmf_version": info.ovmf_version,
            "kernel_command": info.kernel_cmd,
            "eos_version": info.eos_version,
        }
        common.emit(facts, lambda: _facts(facts), as_json=as_json)

    common.run_async(main())


@app.command()
def logs(
    vm_id: VmId,
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the VM has ended.")
    ] = False,
    manager_url: ManagerUrl = DEFAULT_URL,
    manager_ca: ManagerCa = None,
    manager_crt: ManagerCrt = None,
    manager_key: ManagerKey = None,
) -> None:
    """Print a VM's console: what the guest's programs wrote."""

    async def main() -> None:
        async with _client(manager_url, manager_ca, manager_crt, manager_key) as manager:
            await _print_logs(manager, vm_id, follow=follow, to=common.stdout)

    common.run_async(main())


@app.command()
def remove(
    vm_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The VMs to end.")],
    *,
    manager_url: ManagerUrl = DEFAULT_URL,
    manager_ca: ManagerCa = None,
    manager_crt: ManagerCrt = None,
    manager_key: ManagerKey = None,
    as_json: common.JsonFlag = False,
) -> None:
    """End VMs and forget them, console included."""

    async def main() -> None:
        async with _client(manager_url, manager_ca, manager_crt, manager_key) as manager:
            for vm_id in vm_ids:
                with common.stderr.status(f"removing {vm_id}"):
                    await manager.remove(vm_id)
        common.emit(
            {"removed": vm_ids}, lambda: _say(f"removed {', '.join(vm_ids)}"), as_json=as_json
        )

    common.run_async(main())


async def _create(
    client: ManagerClient, request: pb.CreateReq, *, wait: bool, as_json: bool
) -> None:
    async with client as manager:
        if wait:
            await manager.check_followable()
        with common.stderr.status("starting the VM"):
            created = await manager.create(request)
        vm_id, port = created.cvm_id, created.forwarded_port
        suffix = f" and port {port}" if port else ""
        common.emit(
            {"id": vm_id, "forwarded_port": port},
            lambda: _say(f"Virtual machine created with id {vm_id}{suffix}"),
            as_json=as_json,
        )
        sys.stdout.flush()
        if not wait:
            return
        try:
            await _print_logs(manager, vm_id, follow=True, to=common.stderr)
        except NotFoundError:
            return  # removed before we could look
        found = await _find(manager, vm_id)
    if found is None:
        return
    if found.state == "ended" and found.outcome == "failed":
        raise ComputationError(f"the VM {vm_id}: {found.reason}", exit_status=1)
    if found.state not in {"ended", "stopped"}:
        raise PeerError(f"the VM {vm_id} has {found.state}: {found.reason or 'no reason given'}")


async def _find(manager: ManagerClient, vm_id: str) -> CvmSummary | None:
    return next((vm for vm in await manager.vms() if vm.id == vm_id), None)


async def _print_logs(manager: ManagerClient, vm_id: str, *, follow: bool, to: Screen) -> None:
    async for chunk in manager.logs(vm_id, follow=follow):
        to.write(chunk, more=True)


def _client(url: str, ca: Path | None, crt: Path | None, key: Path | None) -> ManagerClient:
    if (crt is None) != (key is None) or (crt is not None and ca is None):
        raise UsageError("--certificate needs --private-key and --manager-ca beside it")
    if ca is None:
        return ManagerClient(url)
    tls = Tls(
        ca=read_certificates(ca, "the manager's CA certificate"),
        certificate=_read(crt, "our certificate") or None,
        key=_read(key, "our key") or None,
    )
    return ManagerClient(url, tls=tls)


def _kbs_params(text: str) -> str:
    """Return how a manager is told of a KBS, from that or its URL alone."""
    return f"{KBS}::{text}" if text.startswith(("http://", "https://")) else text


def _read(path: Path | None, what: str, read: Callable[[Path, str], bytes] = read_file) -> bytes:
    return b"" if path is None else read(path, what)


def _say(text: str) -> None:
    common.stdout.print(text, markup=False)


def _facts(facts: dict[str, object]) -> None:
    for name, value in facts.items():
        if value not in ("", None):
            _say(f"{name.replace('_', ' ')}: {value}")


def _table(vms: list[CvmSummary]) -> None:
    # Not a drawn table: ids must come out whole, on a narrow terminal, too.
    if not vms:
        _say("no VMs")
        return
    rows = [("ID", "STATE", "OUTCOME", "BACKEND", "CVMS", "CREATED", "EXPIRES", "REASON")]
    for vm in vms:
        times = (_time(vm.created), _time(vm.expires))
        words = (vm.id, vm.state, vm.outcome or "-", vm.backend, vm.cvms)
        rows.append((*words, *times, vm.reason or vm.problem))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        _say("  ".join(cells).rstrip())


def _time(moment: dt.datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}" if moment else "-"
