# SPDX-License-Identifier: Apache-2.0
"""Confidential processors in software, behind the device files of real ones.

The guest's side is the product: it finds the device, asks it, logs and measures. What it
asks is made here, and signed by makers of our own.
"""

import errno
import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _intel import Intel, td
from _kbs import InProcessKbs
from _rcar import Handshake, denial
from _snp import ASK, Chip, der
from _snp import ROOT as ARK
from _tsm import ROOT, FakeTsm, error

from cocos.attestation_agent.event_log import EventLog
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.reported_log import ReportedLog
from cocos.attestation_agent.service import AttestationAgent, Measured
from cocos.attestation_agent.tokens import KbsTokens
from cocos.attesters import Devices, detect
from cocos.clients.kbs import KbsClient
from cocos.evidence.snp_table import KINDS
from cocos.host.devices import processors
from cocos.host.devices.configfs_tsm import SNP, TDX
from cocos.wire.manifest.event import ComputationEvent

GET_TD_REPORT = 0xC4405401
EXTEND_RTMR = 0x80315403
MOST_RTMR = 3


def no_clients(url: str) -> KbsClient:
    raise AssertionError(url)


@dataclass
class SoftwareTdx:
    """A TDX module with its quoting enclave.

    Attributes:
        maker: Signs for it.
        config_id: MRCONFIGID, which the host sets at the launch.
        body: Other fields of the domain.
    """

    maker: Intel
    config_id: bytes = bytes(48)
    body: dict[str, bytes] = field(default_factory=dict)
    rtmrs: list[bytes] = field(default_factory=lambda: [bytes(48)] * 4)

    def quote(self, data: bytes) -> tuple[bytes, None]:
        registers = {f"rtmr_{number}": value for number, value in enumerate(self.rtmrs)}
        fields: dict[str, Any] = {"mr_config_id": self.config_id, **registers, **self.body}
        return self.maker.quote(td(data, **fields)), None

    def ioctl(self, descriptor: int, request: int, argument: bytearray) -> int:  # noqa: ARG002
        if request == GET_TD_REPORT:
            info = bytes(16 + 48) + self.config_id + bytes(96) + b"".join(self.rtmrs)
            argument[64:] = (bytes(512) + info).ljust(1024, b"\0")
        elif request == EXTEND_RTMR:
            digest, number = struct.unpack("<48sB", argument)
            if number > MOST_RTMR:
                raise error(errno.EINVAL)
            self.rtmrs[number] = hashlib.sha384(self.rtmrs[number] + digest).digest()
        else:
            raise error(errno.ENOTTY)
        return 0

    async def guest(self, folder: Path) -> "Guest":
        device = folder / "tdx_guest"
        device.touch()
        found = processors.find(
            root=ROOT,
            files=FakeTsm(TDX, self.quote),
            sev=folder / "none",
            tdx=device,
            ioctl=self.ioctl,
        )
        return await Guest.start(found, folder)


@dataclass
class SoftwareSnp:
    """A secure processor.

    Attributes:
        chip: Signs.
        host_data: HOST_DATA, which the host sets at the launch.
        beside: Certificate table that the host puts beside reports.
        report: Other members of reports.
    """

    chip: Chip
    host_data: bytes = bytes(32)
    beside: bytes | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def make(self, data: bytes) -> tuple[bytes, bytes]:
        beside = self.beside
        if beside is None:
            entries = {"VCEK": self.chip.certificate(), "ASK": der(ASK), "ARK": der(ARK)}
            beside = table(entries)
        return self.chip.report(data, self.host_data, **self.report), beside

    async def guest(self, folder: Path) -> "Guest":
        none = folder / "none"
        kernel = FakeTsm(SNP, self.make)
        found = processors.find(root=ROOT, files=kernel, sev=none, tdx=none)
        return await Guest.start(found, folder)


def table(entries: dict[str, bytes]) -> bytes:
    """Return a host's certificate table."""
    begin = 24 * (len(entries) + 1)
    kinds = {name: guid for guid, name in KINDS.items()}
    rows, blobs = b"", b""
    for name, data in entries.items():
        rows += kinds[name].bytes + struct.pack("<II", begin + len(blobs), len(data))
        blobs += data
    return rows + bytes(24) + blobs


@dataclass
class Guest:
    """The attestation agent of a guest, as its program puts it together."""

    machine: Machine
    agent: AttestationAgent
    tee: str

    @classmethod
    async def start(cls, found: processors.Processors, folder: Path) -> "Guest":
        attester = await detect(Devices(snp=found.snp, tdx=found.tdx), insecure_sample=False)
        kind = ReportedLog if attester.events_in_report else EventLog
        log = kind(folder / "run" / "eventlog", attester, attester.default_register)
        await log.open()
        machine = Machine(attester, log)
        agent = AttestationAgent(machine, KbsTokens(no_clients, configured=None))
        return cls(machine, agent, (await attester.tee()).value)

    async def measure(self, event: ComputationEvent) -> None:
        done = await self.agent.extend_runtime_measurement(*event.measured(), None)
        assert done is Measured.DONE

    async def session(self, kbs: InProcessKbs, init_data: str | None = None) -> Handshake:
        """Open a session; nothing has been shown yet."""
        made = Handshake(kbs, None, None, init_data, tee=self.tee)  # type: ignore[arg-type]
        answer = await made.auth()
        assert answer.status_code == 200, answer.text
        return made

    async def evidence(self, session: Handshake) -> Any:
        """Evidence for a session."""
        return await self.machine.evidence(session.report_data)


def computation(algorithm: str, manifest: str = "m") -> ComputationEvent:
    """Return what a computation's agent measures."""

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    names = ("arguments", "consumers", "environment")
    return ComputationEvent(
        algorithm=digest(algorithm),
        datasets=(digest("data"),),
        kbs=("",),
        manifest=digest(manifest),
        **{name: digest(name) for name in names},
    )


async def refused(
    kbs: InProcessKbs, guest: Guest, evidence: Any = None, *, key: str, init_data: str
) -> set[str]:
    """Return the checks that failed; nothing came out."""
    session = await guest.session(kbs, init_data)
    shown = await guest.evidence(session) if evidence is None else evidence
    answer = await session.attest(shown)
    if answer.status_code == 200:
        answer = await session.get(key)
    checks = set(await denial(kbs, answer))
    assert (await session.get(key)).status_code in {401, 403}
    return checks
