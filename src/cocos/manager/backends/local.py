# SPDX-License-Identifier: Apache-2.0
"""VMs that are none: the guest's programs as sandboxed processes of this machine.

For laptops without QEMU and for fast tests. Nothing is measured and nothing is encrypted
in memory: whoever is root here reads everything, and the evidence is a sample that a KBS
takes only if its operator said so.

Inside, ``/run/cocos`` holds the sockets, ``/etc/cocos`` the configuration, and ``/cocos``
is the agent's working folder. Each of the programs has a sandbox of its own.
"""

import asyncio
import contextlib
import os
import platform
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cocos.errors import ProcessError, UnreachableError
from cocos.host.containers import cgroups, sandbox
from cocos.host.containers.caretaker import taken_care_of
from cocos.host.containers.sandbox import Sandboxed, View
from cocos.host.files import cache_folder, write_atomic
from cocos.host.images.skopeo import registries_conf
from cocos.manager.backends._base import Backend, Ending, Hardware, Vm
from cocos.manager.console import Console, pump
from cocos.manager.plan import VmPlan
from cocos.wire import json

START_SECONDS = 60.0  # for one program; a cold disk can take its time

_SOCKETS = Path("/run/cocos")
_CONFIG = Path("/etc/cocos")
_WORK = Path("/cocos")
_AGENT_ADDRESS = f"unix:{_SOCKETS}/attestation-agent.sock"
_PROVIDER_ADDRESS = f"unix:{_SOCKETS}/keyprovider.sock"
_READY = ": listening on "
AGENT = "cocos-agent"


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the guest.

    Attributes:
        name: Its console script.
        arguments: What follows the name.
        env: Its environment beyond what all children get; may hold secrets.
        announces: Whether it says when it answers, so that the next one waits for it.
        view: What it sees.
    """

    name: str
    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    view: View
    announces: bool = True


class LocalBackend(Backend):
    """Starts the guest's programs as sandboxed processes."""

    name: ClassVar[str] = "local"
    warning: ClassVar[str] = (
        "local-insecure: the guest's programs run as processes of this machine; "
        "whoever is root here reads all data, and the evidence is a sample"
    )

    @contextlib.asynccontextmanager
    async def start(
        self, vm_id: str, plan: VmPlan, folder: Path, console: Console
    ) -> AsyncIterator[Vm]:
        """See the base; the VM has ended when any of its programs has."""
        console.write("manager", self.warning)
        running: dict[str, Sandboxed] = {}
        async with contextlib.AsyncExitStack() as stack:
            # Here decrypted images lie on a disk, which a killed manager would leave.
            care = taken_care_of(folder, cgroup=cgroup_name(vm_id))
            await stack.enter_async_context(care)
            lay_out(folder, plan)
            for program in programs(vm_id, plan, folder):
                running[program.name] = await stack.enter_async_context(_started(program, console))
            yield _LocalVm(running, console)

    async def check(self) -> None:
        """See the base."""
        await sandbox.check()

    def clean(self, vm_id: str, folder: Path) -> None:  # noqa: ARG002 - processes end with us
        """See the base; processes die with the manager, their control groups do not."""
        cgroups.remove(cgroup_name(vm_id))

    def hardware(self) -> Hardware:
        """See the base; the programs run on the host's processors."""
        return Hardware(os.cpu_count() or 1, f"{platform.machine()} (the host's, insecure)")


class _LocalVm(Vm):
    def __init__(self, running: Mapping[str, Sandboxed], console: Console) -> None:
        self._running = running
        self._console = console

    async def wait(self) -> Ending:
        tasks = {asyncio.create_task(child.wait()): name for name, child in self._running.items()}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        first = next(iter(done))
        name, status = tasks[first], first.result()
        if name == AGENT and status == 0:
            return Ending("its agent ended", failed=False)
        return Ending(_describe_end(name, status, self._console), failed=True)


def cgroup_name(vm_id: str) -> str:
    """Return the name of the control group that a VM's containers are in."""
    return f"cocos-{vm_id}"


def lay_out(folder: Path, plan: VmPlan) -> None:
    """Make a VM's folders and configuration files; secrets are readable by us alone."""
    for name in ("run", "etc", "work"):
        (folder / name).mkdir(mode=0o700)
    providers = {"key-providers": {"attestation-agent": {"grpc": _PROVIDER_ADDRESS}}}
    files = {
        "ocicrypt.json": json.encode(providers),
        "registries.conf": registries_conf().encode(),
        "cert.pem": plan.client_cert,
        "key.pem": plan.client_key,
        "ca.pem": plan.server_ca,
        "registry-ca.pem": plan.registry_ca,
    }
    for name, data in files.items():
        if data:
            write_atomic(folder / "etc" / name, data)


def programs(vm_id: str, plan: VmPlan, folder: Path) -> list[Program]:
    """Return the guest's programs in the order in which they start."""
    sockets = {_SOCKETS: folder / "run"}
    narrow = View(writable=sockets)
    tools = cache_folder("tools")
    wide = View(
        readable={_CONFIG: folder / "etc", tools: tools},
        writable={**sockets, _WORK: folder / "work"},
        workdir=_WORK,
        cgroup=cgroup_name(vm_id),
    )
    common = {"COCOS_LOG_LEVEL": plan.log_level, "AGENT_LOG_LEVEL": plan.log_level}
    if plan.kbs_params:
        common["AA_KBC_PARAMS"] = plan.kbs_params
    attested = {**common, "COCOS_AA_ADDRESS": _AGENT_ADDRESS}
    agent = {
        **plan.variables,
        **attested,
        "AGENT_CVM_ID": vm_id,
        "COCOS_WORK_FOLDER": str(_WORK),
        "AGENT_ONCE": "false" if plan.keep else "true",
        "AGENT_CVM_GRPC_URL": plan.cvms,
        "OCICRYPT_KEYPROVIDER_CONFIG": f"{_CONFIG}/ocicrypt.json",
        "CONTAINERS_REGISTRIES_CONF": f"{_CONFIG}/registries.conf",
        "XDG_CACHE_HOME": str(tools.parent.parent),
    }
    if os.geteuid() != 0:
        # Only root may make control groups; the console says that limits are weak.
        agent["COCOS_INSECURE_WITHOUT_CGROUPS"] = "true"
    if plan.server_ca:
        agent["AGENT_CVM_GRPC_SERVER_CA_CERTS"] = f"{_CONFIG}/ca.pem"
    if plan.registry_ca:
        agent["EXTRA_ROOT_CERTIFICATES"] = f"{_CONFIG}/registry-ca.pem"
    if plan.client_cert:
        agent["AGENT_CVM_GRPC_CLIENT_CERT"] = f"{_CONFIG}/cert.pem"
        agent["AGENT_CVM_GRPC_CLIENT_KEY"] = f"{_CONFIG}/key.pem"
    return [
        Program(
            "attestation-agent",
            ("--socket", _AGENT_ADDRESS, "--insecure-sample"),
            common,
            narrow,
        ),
        Program("coco-keyprovider", ("--socket", _PROVIDER_ADDRESS), attested, narrow),
        Program(AGENT, (), agent, wide, announces=False),
    ]


@contextlib.asynccontextmanager
async def _started(program: Program, console: Console) -> AsyncIterator[Sandboxed]:
    """Have one program run; enter the block once it answers."""
    answers = asyncio.Event()

    def sink(line: str) -> None:
        console.write(program.name, line)
        if _READY in line:
            answers.set()

    argv = [str(Path(sys.executable).parent / program.name), *program.arguments]
    pumping: asyncio.Task[None] | None = None
    try:
        async with sandbox.run(program.view, argv, env=program.env) as child:
            pumping = asyncio.create_task(pump(child.output, sink))
            if program.announces:
                await _until_it_answers(program.name, child, answers, pumping, console)
            yield child
    finally:
        if pumping is not None:
            # Every writer is dead by now, so the end of its output comes at once.
            await pumping


async def _until_it_answers(
    name: str,
    child: Sandboxed,
    answers: asyncio.Event,
    pumping: asyncio.Task[None],
    console: Console,
) -> None:
    ended = asyncio.create_task(child.wait())
    ready = asyncio.create_task(answers.wait())
    try:
        done, _ = await asyncio.wait(
            {ended, ready}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        ended.cancel()
        ready.cancel()
    if ready in done:
        return
    if ended not in done:
        raise UnreachableError(f"{name} did not answer within {START_SECONDS:g} s")
    await asyncio.shield(pumping)  # its last words
    status = ended.result()
    raise ProcessError(_describe_end(name, status, console), exit_status=status)


def _describe_end(name: str, status: int, console: Console) -> str:
    last = " | ".join(console.tail(name, 3))
    return f"{name} ended with exit code {status}: {last or 'it printed nothing'}"
