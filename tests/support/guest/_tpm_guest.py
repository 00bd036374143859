# SPDX-License-Identifier: Apache-2.0
"""A machine with a TPM on which the VM's attestation agent runs, without the VM."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from _boot import CMDLINE, boot
from _guest import GuestPython
from _programs import Running
from _tpm import LOG_HEADER, Tpm, records
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.clients.attestation_agent import AttestationAgent

INIT_DATA = b'version = "0.1.0"\nalgorithm = "sha256"\n[data]\nnote = "from the host"\n'


@dataclass
class Guest:
    """A machine with a TPM; its agent can be started again and again."""

    python: GuestPython
    folder: Path
    tpm: Tpm
    cmdline: str = "quiet"

    async def boot(self) -> None:
        """Have firmware and boot loader measure the image that tests know; once."""
        await self.tpm.measure(*boot())
        self.cmdline = CMDLINE
        self.write("boot-log", LOG_HEADER + records(self.tpm.events))

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @contextlib.asynccontextmanager
    async def agent(
        self,
        *flags: str | Path,
        init_data: bytes | None = INIT_DATA,
        config: str = "[eventlog_config]\nenable_eventlog = true\n",
        more: dict[str, str] | None = None,
    ) -> AsyncIterator[tuple[AttestationAgent, Running]]:
        """Have the agent run as in the VM."""
        arguments: list[str | Path] = ["-a", "127.0.0.1:0"]
        arguments += ["-c", self.write("aa.toml", config.encode())]
        if init_data is not None:
            # As on a disk: filled up with zeros.
            arguments += ["-t", self.write("initdata.toml", init_data.ljust(512, b"\0"))]
        env = {
            "AA_TPM_DEVICE": f"swtpm:path={self.folder}/tpm.sock",
            "AAEL_PATH": str(self.log),
            "COCOS_COMMAND_LINE": str(self.write("cmdline", f"{self.cmdline}\n".encode())),
            "COCOS_TPM_EVENT_LOG": str(self.folder / "boot-log"),
            **(more or {}),
        }
        async with (
            self.python.running(
                "attestation-agent", *arguments, *flags, folder=self.folder, env=env
            ) as program,
            AttestationAgent(program.address) as agent,
        ):
            yield agent, program

    @property
    def log(self) -> Path:
        return self.folder / "aael" / "eventlog"

    @property
    def ek(self) -> rsa.RSAPublicKey:
        """The TPM's endorsement key."""
        key = x509.load_der_x509_certificate(self.tpm.read("ek.der")).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        return key

    def kill_tpm(self) -> None:
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)

    async def pcr(self, index: int) -> bytes:
        """Read a PCR while no agent has the TPM."""
        return bytes.fromhex((await self.tpm.pcrs())[index])
