# SPDX-License-Identifier: Apache-2.0
"""Real VMs, a real manager, a real KBS, the default policies: who gets the key, who does not.

Issue 3. Point 5: the default attestation policy knows the image by the reference values
that its build wrote. Point 6: only the computation that the owner agreed to. Point 7 and
"It must fail like this": command line (and with it the UKI) or init data changed: denied,
PCR, found, expected and the first event that differs are named by kbs-client explain; the
debug image is refused and named as one.

Two VMs of one processor each run at a time: most of a boot has use for one only.
"""

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _boot import measured
from _cvms import Cvms
from _owner import BIN, PRIVATE, Owner, push_images
from _policies import agreed
from _programs import Running, running
from cryptography.hazmat.primitives import serialization

from cocos.clients.manager import ManagerClient
from cocos.crypto import sealed
from cocos.cvms.record import Verdict
from cocos.cvms.service import Ending
from cocos.evidence.tpm import extend
from cocos.host import process
from cocos.host.archive import unzip
from cocos.host.images.skopeo import Skopeo
from cocos.wire._generated import manager_pb2 as pb
from cocos.wire.image_folder import REFERENCE_VALUES, UKI
from cocos.wire.init_data import from_disk
from cocos.wire.pe import Image

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vm,
    pytest.mark.xdist_group("image"),
    pytest.mark.timeout(1800),
]

BOOT_SECONDS = 800  # emulated, on a busy machine
NAMES = ("good", "told", "changed", "debug")


@dataclass
class Host:
    """A manager of this image, and its VMs' init data."""

    folder: Path
    image: Path

    @property
    def ca(self) -> Path:
        return self.folder / "tpm-ca.pem"

    async def make_ca(self) -> None:
        self.folder.mkdir()
        words = ["tpm-ca", "--state-folder", str(self.folder / "state")]
        done = await process.run([BIN / "cocos-manager", *words], timeout=60)
        self.ca.write_bytes(done.stdout)

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[ManagerClient]:
        flags: list[str | Path] = ["--backend", "qemu", "--accelerator", "tcg"]
        flags += ["--memory", "1536M", "--cpus", "1", "--grpc-port", "0", "--http-port", "0"]
        flags += ["--state-folder", self.folder / "state", "--image-folder", self.image]
        async with (
            running("cocos-manager", *flags) as program,
            ManagerClient(f"http://{program.address}") as client,
        ):
            yield client

    def pcr8(self, vm_id: str) -> str:
        """What the VM must measure of what it was told."""
        disk = self.folder / "state" / "vms" / vm_id / "vm" / "init-data.img"
        return extend(bytes(32), hashlib.sha256(from_disk(disk.read_bytes())).digest()).hex()


@pytest.fixture
async def hosts(image: Path, debug_image: Path, tmp_path: Path) -> dict[str, Host]:
    """One host that is as it should be, and others."""
    changed = tmp_path / "changed"
    shutil.copytree(image, changed)
    uki = (changed / UKI).read_bytes()
    line = Image.parse(uki).section(".cmdline")
    assert line is not None
    assert uki.count(line) == 1
    (changed / UKI).write_bytes(uki.replace(line, line.replace(b"loglevel=4", b"loglevel=5")))
    images = {"good": image, "told": image, "changed": changed, "debug": debug_image}
    made = {name: Host(tmp_path / f"host-{name}", images[name]) for name in NAMES}
    for host in made.values():
        await host.make_ca()
    return made


@dataclass
class World:
    """The owner's side, once it is set up."""

    owner: Owner
    kbs: Running
    manifest: Any
    told: list[str] = field(default_factory=list)

    async def accept(self, pcr8: str) -> None:
        """Have the KBS accept what a VM was told, beside what it accepts already."""
        self.told.append(pcr8)
        async with self.owner.administer(self.kbs.address) as admin:
            await admin.register_reference_values({"tpm_pcr08": self.told})


@contextlib.asynccontextmanager
async def vm(world: World, host: Host, name: str) -> AsyncIterator[tuple[ManagerClient, str, Cvms]]:
    """A VM of a host's, and the CVMS that it was told of."""
    cvms = Cvms(world.manifest, world.owner.folder / f"results-{name}")
    async with cvms.serving() as address, host.manager() as client:
        kbs = f"cc_kbc::{world.kbs.address}"
        request = pb.CreateReq(agent_cvm_server_url=address, aa_kbs_params=kbs)
        vm_id = (await client.create(request)).cvm_id
        try:
            yield client, vm_id, cvms
        except BaseException as error:
            console = b"".join([piece async for piece in client.logs(vm_id)])
            error.add_note(console[-8000:].decode(errors="replace"))
            raise
        await client.remove(vm_id)
        assert not (host.folder / "state" / "vms" / vm_id).exists()


async def ending(cvms: Cvms) -> Ending:
    return await asyncio.wait_for(cvms.endings.get(), BOOT_SECONDS)


async def ends(client: ManagerClient, vm_id: str, outcome: str) -> None:
    """The guest shuts down with its computation, and has said on its console how that ended."""
    async with asyncio.timeout(BOOT_SECONDS):
        async for _ in client.logs(vm_id, follow=True):
            pass
    (found,) = [each for each in await client.vms() if each.id == vm_id]
    assert (found.state, found.outcome) == ("ended", outcome), found


async def refused(
    world: World, host: Host, name: str, *, told: bool = True
) -> tuple[dict[str, Any], str]:
    """No key for a VM of this host; return what the operator is told, and its PCR 8."""
    async with vm(world, host, name) as (client, vm_id, cvms):
        pcr8 = host.pcr8(vm_id)
        if told:
            await world.accept(pcr8)
        end = await ending(cvms)
        assert end.verdict is Verdict.FAILED, cvms.shown
        await ends(client, vm_id, "failed")
    (failed,) = [entry for entry in cvms.shown if entry.get("event") == "Failed"]
    details = failed["details"]
    assert (details["step"], details["code"]) == ("fetch", "denied"), details
    findings = await world.owner.explain(world.kbs.address, f"{details}")
    assert findings["cpu0.ear.status"]["actual"].startswith("warning")
    return findings, pcr8


async def served(world: World, host: Host) -> None:
    """The right image, told the right things, for the right computation."""
    async with vm(world, host, "good") as (client, vm_id, cvms):
        await world.accept(host.pcr8(vm_id))
        assert await ending(cvms) == Ending(Verdict.COMPLETE), cvms.shown
        await ends(client, vm_id, "completed")
    private = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    package = sealed.open_sealed(cvms.service.result_path.read_bytes(), private)
    folder = world.owner.folder / "opened"
    assert "copy" in unzip(io.BytesIO(package), folder)
    assert (folder / "copy").read_bytes() == b"a,b\n1,2\n"


def about(findings: dict[str, Any]) -> set[str]:
    """The checks that name a claim of the machine's."""
    return {check for check in findings if check.startswith("cpu0.tpm.")}


async def test_only_the_measured_image_gets_the_key(
    tool: Skopeo, registry: str, hosts: dict[str, Host], image: Path, tmp_path: Path
) -> None:
    owner = Owner.make(tmp_path, tool, registry, *(host.ca for host in hosts.values()))
    pushed = await push_images(owner)
    manifest = pushed.computation("")
    values = json.loads((image / REFERENCE_VALUES).read_bytes())
    del values["inputs"]
    policy = agreed("Only this computation", measured(manifest))
    async with owner.kbs() as kbs:
        await owner.set_up(kbs.address, values, policy)
        world = World(owner, kbs, manifest)
        (told, pcr8), _ = await asyncio.gather(
            refused(world, hosts["told"], "told", told=False), served(world, hosts["good"])
        )
        (changed, _), (debug, _) = await asyncio.gather(
            refused(world, hosts["changed"], "changed"), refused(world, hosts["debug"], "debug")
        )
        log = kbs.text
    # The operator's log has it, too.
    assert "tpm.pcr11" in log
    assert "is the first that differs" in log
    # The host told the VM something else than the KBS accepts.
    assert about(told) == {"cpu0.tpm.pcr08"}
    assert told["cpu0.tpm.pcr08"]["actual"] == pcr8
    assert told["cpu0.tpm.pcr08"]["expected"] == world.told[0]

    image_checks = {"cpu0.tpm.pcr04", "cpu0.tpm.pcr09", "cpu0.tpm.pcr11"}
    assert about(changed) == image_checks
    assert about(debug) == image_checks | {"cpu0.tpm.debug"}
    # The debug image says what it is in its os-release, before its command line.
    for findings, section in ((changed, ".cmdline"), (debug, ".osrel")):
        events = {"pcr04": "File(kernel)", "pcr09": "LoadOptions", "pcr11": f"EV_IPL {section}"}
        for pcr, event in events.items():
            finding = findings[f"cpu0.tpm.{pcr}"]
            assert finding["expected"] == values[f"tpm_{pcr}"][0] != finding["actual"]
            assert "is the first that differs" in finding["problem"]
            assert event in finding["problem"]
    assert debug["cpu0.tpm.debug"]["actual"] == "true"
