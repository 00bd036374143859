# SPDX-License-Identifier: Apache-2.0
"""Software TPMs with endorsement-key certificates, driven by the TPM2 tools.

Independent of the attestation agent: what is quoted here was made by other people's code.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import select
import signal
import struct
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._clock import system_clock
from cocos._types import JsonObject
from cocos.attestation_agent.event import tagged_event
from cocos.crypto import tpm_credential
from cocos.evidence.tpm import RsaPublic
from cocos.host import process
from cocos.host.machines import swtpm

EK_CERTIFICATE = "0x01c00002"
ALL_PCRS = "sha256:" + ",".join(map(str, range(24)))

LOG_HEADER = struct.pack("<II20xI", 0, 3, 33) + (
    b"Spec ID Event03\0" + struct.pack("<I4BIHHB", 0, 0, 2, 0, 2, 1, 0x0B, 32, 0)
)
EV_SEPARATOR, EV_EVENT_TAG, EV_IPL = 4, 6, 0xD
EV_EFI_ACTION, EV_EFI_APPLICATION = 0x80000007, 0x80000003


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True)
class Logged:
    """An event to measure: into which PCR, of which type, over what."""

    pcr: int
    type: int
    data: bytes
    digest: bytes | None = None

    @property
    def extended(self) -> bytes:
        return self.digest or hashlib.sha256(self.data).digest()

    @property
    def record(self) -> bytes:
        head = struct.pack("<IIIH", self.pcr, self.type, 1, 0x0B)
        return head + self.extended + struct.pack("<I", len(self.data)) + self.data


def records(events: Iterable[Logged]) -> bytes:
    return b"".join(event.record for event in events)


def runtime(domain: str, operation: str, content: str, pcr: int = 14) -> Logged:
    return Logged(pcr, EV_EVENT_TAG, tagged_event(domain, operation, content))


def section(name: str, content: bytes) -> list[Logged]:
    """What systemd-stub measures of one part of a unified kernel image."""
    label = name.encode() + b"\0"
    return [
        Logged(11, EV_IPL, label),
        Logged(11, EV_IPL, label, hashlib.sha256(content).digest()),
    ]


@dataclass
class TpmCa:
    """Certifies the endorsement keys of the TPMs made in ``folder``.

    A manager's, or with ``vendor`` one that swtpm_localca makes for itself.
    """

    folder: Path
    vendor: bool = False
    number: int = 0

    @property
    def certificate(self) -> Path:
        return self.folder / "issuercert.pem"

    def make(self) -> None:
        """Have a manager make it; a vendor's comes with the first TPM."""
        made = swtpm.TpmCa(self.folder / "manager")
        made.make(system_clock())
        (self.folder / "signkey.pem").write_bytes((self.folder / "manager/key.pem").read_bytes())
        self.certificate.write_bytes(made.certificate_file.read_bytes())

    async def manufacture(self) -> Path:
        """Return the state folder of a new TPM."""
        self.number += 1
        state = self.folder / f"tpm{self.number}"
        state.mkdir(parents=True)
        if not self.vendor and not self.certificate.exists():
            self.make()
        config = self.folder / "setup.conf"
        options = self.folder / "localca.options"
        options.write_text(
            "--platform-manufacturer Cocos\n--platform-version 1\n--platform-model test\n"
        )
        authority = self.folder / "localca.conf"
        authority.write_text(
            f"statedir = {self.folder}\nsigningkey = {self.folder}/signkey.pem\n"
            f"issuercert = {self.certificate}\ncertserial = {self.folder}/certserial\n"
        )
        config.write_text(
            "create_certs_tool=/usr/bin/swtpm_localca\n"
            f"create_certs_tool_config={authority}\ncreate_certs_tool_options={options}\n"
        )
        setup = process.find_tool("swtpm_setup", hint="apt-get install swtpm-tools")
        argv: list[str | Path] = [setup, "--tpm2", "--tpm-state", state, "--config", config]
        await process.run([*argv, "--create-ek-cert", "--lock-nvram"], timeout=120)
        return state


@dataclass
class Tpm:
    """A running TPM with an attestation key under its endorsement key."""

    folder: Path
    events: list[Logged] = field(default_factory=list)
    aael: list[Logged] = field(default_factory=list)

    async def tool(self, name: str, *arguments: str) -> bytes:
        """Run one of the TPM2 tools in the TPM's folder."""
        env = {"TPM2TOOLS_TCTI": f"swtpm:path={self.folder}/tpm.sock"}
        path = process.find_tool(f"tpm2_{name}", hint="apt-get install tpm2-tools")
        done = await process.run([path, *arguments], env=env, cwd=self.folder, timeout=60)
        return done.stdout

    async def start(self) -> None:
        """Make the keys of this boot."""
        await self.tool("nvread", EK_CERTIFICATE, "-C", "o", "-o", "ek.der")
        await self.tool("createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub")
        await self.tool(
            *("createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "rsa", "-g", "sha256"),
            *("-s", "rsassa", "-u", "ak.pub", "-n", "ak.name", "-Q"),
        )
        await self.tool("flushcontext", "-t")  # the TPM has room for three objects

    def make_folder(self) -> None:
        self.folder.mkdir(parents=True)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @property
    def ak_name(self) -> bytes:
        return self.read("ak.name")

    @property
    def ak_spki(self) -> bytes:
        """Public key of the attestation key, DER."""
        public = RsaPublic.parse(self.read("ak.pub"))
        key = rsa.RSAPublicNumbers(public.exponent, public.modulus).public_key()
        return key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def params(self) -> JsonObject:
        """What the handshake's request announces."""
        ek, ak = self.read("ek.der"), self.read("ak.pub")
        return {"ek_certificate": b64(ek), "ak_public": b64(ak)}

    async def measure(self, *events: Logged) -> None:
        """Extend PCRs and write the log, as firmware and kernel do."""
        extensions = [f"{event.pcr}:sha256={event.extended.hex()}" for event in events]
        await self.tool("pcrextend", *extensions)
        for event in events:
            (self.aael if event.type == EV_EVENT_TAG else self.events).append(event)

    async def extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR and write nothing."""
        await self.tool("pcrextend", f"{pcr}:sha256={digest.hex()}")

    async def pcrs(self) -> list[str]:
        await self.tool("pcrread", ALL_PCRS, "-o", "pcrs.bin")
        values = self.read("pcrs.bin")
        return [values[begin : begin + 32].hex() for begin in range(0, len(values), 32)]

    async def activate(self, challenge: JsonObject) -> bytes:
        """Recover the secret of a challenge, or fail as the TPM does."""
        # The tools' file format: magic, version, then the two structures.
        blob = base64.b64decode(challenge["credential_blob"])
        secret = base64.b64decode(challenge["encrypted_secret"])
        (self.folder / "cred").write_bytes(struct.pack(">II", 0xBADCC0DE, 1) + blob + secret)
        await self.tool("startauthsession", "--policy-session", "-S", "session.ctx")
        try:
            await self.tool("policysecret", "-S", "session.ctx", "-c", "e", "-Q")
            await self.tool(
                *("activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "cred"),
                *("-o", "secret", "-P", "session:session.ctx", "-Q"),
            )
            return self.read("secret")
        finally:
            await self.tool("flushcontext", "session.ctx")
            await self.tool("flushcontext", "-t")

    async def quote(
        self, report_data: bytes, *, selection: str = ALL_PCRS, secret: bytes | None = None
    ) -> dict[str, Any]:
        """Return evidence."""
        await self.tool(
            *("quote", "-c", "ak.ctx", "-l", selection, "-q", report_data.hex(), "-g", "sha256"),
            *("-m", "quote", "-s", "signature", "-Q"),
        )
        await self.tool("flushcontext", "-t")
        evidence: dict[str, Any] = {
            "tpm_quote": {
                "signature": b64(self.read("signature")),
                "message": b64(self.read("quote")),
                "pcrs": await self.pcrs(),
            },
            "ak_public": b64(self.ak_spki),
            "event_log": b64(LOG_HEADER + records(self.events)),
            "aael": b64(records(self.aael)),
        }
        if secret is not None:
            shown = tpm_credential.proof(secret, report_data)
            evidence["credential"] = {"proof": b64(shown)}
        return evidence


@contextlib.asynccontextmanager
async def running_tpm(state: Path, folder: Path) -> AsyncIterator[Tpm]:
    """Have a TPM run; its sockets and files are in ``folder``."""
    tpm = Tpm(folder)
    tpm.make_folder()
    program = process.find_tool("swtpm", hint="apt-get install swtpm")
    argv: list[str | Path] = [program, "socket", "--tpm2", "--tpmstate", f"dir={state}"]
    argv += ["--server", f"type=unixio,path={folder}/tpm.sock"]
    argv += ["--ctrl", f"type=unixio,path={folder}/tpm.sock.ctrl"]
    argv += ["--flags", "not-need-init,startup-clear", "--daemon", "--pid", f"file={folder}/pid"]
    # As a daemon it returns once its sockets answer.
    await process.run(argv, timeout=60)
    pid = int((folder / "pid").read_text())
    try:
        await tpm.start()
        yield tpm
    finally:
        await _stop(pid)


async def _stop(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            # Not by asking for its id: nobody may reap a daemon where process 1 is no init.
            await asyncio.to_thread(select.select, [handle], [], [])
        finally:
            os.close(handle)
