# SPDX-License-Identifier: Apache-2.0
"""Computations that must get no key, or lose what they need half-way.

Issue 3, "It must fail like this": a second algorithm with the same key path, a dataset
swapped, a manifest swapped after measurement: denied, and the cause named to the operator
by kbs-client explain. Agent killed, KBS restarted in the middle: a clear event, no
leftover, and a retry works.

Everything is real but the VM: a software TPM, the VM's attestation agent on the VM's
Python, key provider, agent, Skopeo, registry and KBS as programs, the default policy for
evidence with registered reference values. What a VM adds is in tests/boot.
"""

import asyncio
import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _agent import ALGO_KEY, DATA_KEY, Bed
from _boot import boot, measured, reference_values
from _cvms import Cvms
from _gate import Gate
from _guest import GuestPython, guest_python
from _images import algorithm
from _manager import eventually
from _owner import BIN, ENV, PUBLIC, Owner, push_images
from _policies import agreed
from _programs import Running, running
from _tpm import TpmCa, running_tpm
from _tpm_guest import Guest

from cocos.agent.report import Happening
from cocos.agent.service import AgentService
from cocos.agent.states import State
from cocos.cvms.order import consumer_key
from cocos.cvms.record import Verdict
from cocos.cvms.service import Ending
from cocos.host import process
from cocos.host.images.skopeo import Skopeo
from cocos.host.key_folder import KeyFolder
from cocos.wire import ocicrypt
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("tpm-guest"),
    pytest.mark.timeout(600),  # the first test may have to fetch the guest's Python
]

SECONDS = 120
VALUES = reference_values(boot())


def opened(package: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package)) as files:
        return {name: files.read(name) for name in files.namelist()}


@pytest.fixture(scope="module")
def python() -> GuestPython:
    return asyncio.run(guest_python())


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> tuple[TpmCa, Path]:
    """Who certifies TPMs, and the state of a new one."""
    ca = TpmCa(tmp_path_factory.mktemp("ca"))
    return ca, asyncio.run(ca.manufacture())


@pytest.fixture
def owner(tool: Skopeo, registry: str, factory: tuple[TpmCa, Path], tmp_path: Path) -> Owner:
    return Owner.make(tmp_path, tool, registry, factory[0].certificate)


Machine = Callable[[str], contextlib.AbstractAsyncContextManager[Bed]]


@pytest.fixture
def machine(
    python: GuestPython, factory: tuple[TpmCa, Path], tool: Skopeo, tmp_path: Path
) -> Machine:
    """Starts a machine of that name: its boot is measured, its agents run."""

    @contextlib.asynccontextmanager
    async def started(name: str) -> AsyncIterator[Bed]:
        state = Path(shutil.copytree(factory[1], tmp_path / f"{name}-state"))
        folder = tmp_path / name
        async with running_tpm(state, folder) as tpm:
            guest = Guest(python, folder, tpm)
            await guest.boot()
            async with guest.agent() as (attestation, program):
                words = ["--socket", "127.0.0.1:0", "--aa", program.address]
                async with running("coco-keyprovider", *words) as provider:
                    config = guest.write("ocicrypt.json", ocicrypt.grpc_config(provider.address))
                    yield Bed(folder, tool, config, attestation, [], KeyFolder(folder / "none"))

    return started


async def last_event(bed: Bed, service: AgentService, computation: Computation) -> Happening:
    """Run a computation, after stopping what was there; return how it ended."""
    await service.stop()
    service.accept(computation)
    async with asyncio.timeout(SECONDS):
        await service.wait()
    assert not list((bed.work / "computations").glob("*")), "plaintext was left behind"
    return bed.memory.events[-1]


def shows(finding: dict[str, Any], *computations: Computation) -> bool:
    """Tell whether a finding shows exactly these manifests."""
    manifests = [each["manifest"] for each in json.loads(finding["actual"])]
    return manifests == [each.digest().hex() for each in computations]


async def test_the_keys_are_for_what_the_owner_agreed_to(owner: Owner, machine: Machine) -> None:
    images = await push_images(owner)
    async with owner.kbs() as kbs:
        wanted = images.computation(kbs.address)
        other = images.computation(kbs.address, algo="other")
        swapped = images.computation(kbs.address, data="more")
        policy = agreed("Only this computation", measured(wanted))
        await owner.set_up(kbs.address, VALUES, policy)
        async with machine("one") as bed, bed.agent() as service:
            assert (await last_event(bed, service, wanted)).type == State.COMPLETE
            assert opened(bed.memory.results[0])["copy"] == b"a,b\n1,2\n"
            # Swapped after the agreed one was measured.
            await denied(owner, kbs, bed, service, other, [wanted, other])
        async with machine("two") as bed, bed.agent() as service:
            # The same key paths, from the first moment on; then it is too late.
            await denied(owner, kbs, bed, service, other, [other])
            await denied(owner, kbs, bed, service, swapped, [other, swapped])
            await denied(owner, kbs, bed, service, wanted, [other, swapped, wanted])
            assert bed.memory.results == []


async def denied(  # noqa: PLR0917 - who, where, what, and what must be shown
    owner: Owner,
    kbs: Running,
    bed: Bed,
    service: AgentService,
    computation: Computation,
    shown: list[Computation],
) -> None:
    """The computation gets no key; the operator is told what the machine has measured."""
    event = await last_event(bed, service, computation)
    assert (event.type, event.details["code"]) == (State.FAILED, "denied"), event.details
    assert event.details["resource"] == "algorithm"
    findings = await owner.explain(kbs.address, f"{event.details}")
    assert shows(findings["tpm.computations"], *shown)
    assert findings["cpu0.ear.status"]["actual"].startswith("affirming")
    # The KBS's log says the same.
    words = ("http.failed", "tpm.computations", shown[-1].digest().hex())
    await eventually(lambda: any(all(word in line for word in words) for line in kbs.log))


async def test_a_key_on_its_way_does_not_reach_the_next_computation(
    owner: Owner, machine: Machine
) -> None:
    """Network and CVMS together: hold the key back, change the computation, let it through."""
    images = await push_images(owner)
    gate = Gate(f"GET /kbs/v0/resource/{DATA_KEY}".encode())
    async with owner.kbs() as kbs, gate.before(kbs.address.removeprefix("http://")) as way:
        wanted = images.computation(f"http://{way}")
        thief = replace(
            images.computation(f"http://{way}", algo="other"), algorithm=await plain(owner)
        )
        policy = agreed("Only this computation", measured(wanted))
        await owner.set_up(kbs.address, VALUES, policy)
        async with machine("one") as bed, bed.agent() as service:
            gate.armed = True
            service.accept(wanted)
            async with asyncio.timeout(SECONDS):
                await gate.reached.wait()
            event = await last_event(bed, service, thief)
            gate.open()
            assert event.details["code"] == "denied", event.details
            assert event.details["resource"] == "datasets[0]"
            findings = await owner.explain(kbs.address, f"{event.details}")
            assert shows(findings["tpm.computations"], wanted, thief)
            assert bed.memory.results == []


async def plain(owner: Owner) -> Algorithm:
    """A program of the thief's own, for which nobody is asked."""
    url = f"docker://{owner.registry}/thief:v1"
    await owner.tool.copy(f"oci:{owner.folder}/plain/other", url)
    return Algorithm(Source("oci-image", url))


async def test_a_kbs_that_is_killed_half_way(owner: Owner, machine: Machine, registry: str) -> None:
    gate = Gate(b"")
    async with gate.before(registry) as owner.registry, machine("one") as bed:
        images = await push_images(owner)
        data = await owner.tool.resolve(images.pushed["data"][0])
        gate.mark = data.manifest.layers[0].digest.encode()
        async with bed.agent() as service:
            async with owner.kbs() as kbs:
                url = kbs.address
                await owner.set_up(url, VALUES)
                computation = images.computation(url)
                gate.armed = True
                service.accept(computation)
                async with asyncio.timeout(SECONDS):
                    await gate.reached.wait()  # the algorithm is here, the dataset is not
                kbs.kill()
            async with owner.kbs(url.removeprefix("http://")):
                gate.open()
                async with asyncio.timeout(SECONDS):
                    await service.wait()
                assert bed.memory.told()[-1] == ("Complete", "Completed"), bed.memory.events[-1]
            # Down when it is needed: named, nothing left, and it works again with the KBS.
            event = await last_event(bed, service, computation)
            assert event.details["code"] == "unreachable", event.details
            assert f"the KBS at {url}" in event.details["reason"]
            async with owner.kbs(url.removeprefix("http://")):
                assert (await last_event(bed, service, computation)).type == State.COMPLETE
            assert len(bed.memory.results) == 2


@contextlib.asynccontextmanager
async def agent_program(bed: Bed, cvms: str) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        "AGENT_CVM_ID": "vm-1",
        "AGENT_CVM_GRPC_URL": cvms,
        "COCOS_AA_ADDRESS": bed.register._address,
        "COCOS_WORK_FOLDER": str(bed.work),
        "COCOS_INSECURE_WITHOUT_CGROUPS": "1",
        "OCICRYPT_KEYPROVIDER_CONFIG": str(bed.config),
    }
    async with process.spawn([BIN / "cocos-agent"], env=env) as child:
        yield child


def sleepers() -> list[str]:
    """Ids of processes of the container that would run for ever."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().endswith(b"sleep\x0098765\0"):
                found.append(path.parent.name)
    return found


async def test_an_agent_that_is_killed_half_way(owner: Owner, machine: Machine) -> None:
    folder = owner.folder / "plain"
    algorithm(folder / "endless", "busybox sleep 98765", env=ENV)
    algorithm(folder / "repaired", "echo done", env=ENV)
    async with owner.kbs() as kbs, machine("one") as bed:
        await owner.set_up(kbs.address, VALUES)
        url = await owner.push(folder / "endless", ALGO_KEY, "algo")
        source = Source("oci-image", url, encrypted=True, key=str(ALGO_KEY), kbs=kbs.address)
        order = Computation("c-1", Algorithm(source), result_consumers=(consumer_key(PUBLIC),))
        cvms = Cvms(order, owner.folder / "results")
        async with cvms.serving() as address:
            async with agent_program(bed, address) as agent:
                await cvms.until(event="Running", status="InProgress")
                await eventually(sleepers, seconds=SECONDS)
                agent.kill()
                await cvms.until(agent="vm-1", connected=False)
            await owner.push(folder / "repaired", ALGO_KEY, "algo")
            async with agent_program(bed, address):
                await cvms.until(event="Interrupted", status="Failed")
                ending = await asyncio.wait_for(cvms.endings.get(), SECONDS)
                assert not sleepers(), "its container runs on"
                assert not list((bed.work / "computations").glob("*"))
    assert ending == Ending(Verdict.COMPLETE)
    (event,) = [entry for entry in cvms.shown if entry.get("event") == "Interrupted"]
    assert event["computation"] == "c-1"
    assert "the agent was killed" in event["details"]["reason"]
    assert event["details"]["manifest"] == order.digest().hex()
