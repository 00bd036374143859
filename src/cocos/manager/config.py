# SPDX-License-Identifier: Apache-2.0
"""Settings of the manager; the command line, the environment and a file make one of these."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cocos.host.machines.qemu import DEFAULT_GUEST_PORT, OVMF_CODE, OVMF_VARIABLES, Firmware
from cocos.transport.loopback import is_loopback

DEFAULT_BACKEND = "qemu"

ENVIRONMENT = {
    "grpc_host": "MANAGER_GRPC_HOST",
    "grpc_port": "MANAGER_GRPC_PORT",
    "server_cert": "MANAGER_GRPC_SERVER_CERT",
    "server_key": "MANAGER_GRPC_SERVER_KEY",
    "client_ca": "MANAGER_GRPC_CLIENT_CA_CERTS",
    "http_host": "MANAGER_HTTP_HOST",
    "http_port": "MANAGER_HTTP_PORT",
    "max_vms": "MANAGER_MAX_VMS",
    "backend": "MANAGER_BACKEND",
    "state_folder": "MANAGER_STATE_FOLDER",
    "eos_version": "MANAGER_EOS_VERSION",
    "instance_id": "MANAGER_INSTANCE_ID",
    "keep_vms": "MANAGER_KEEP_VMS",
    "image_folder": "MANAGER_IMAGE_FOLDER",
    "memory_mib": "MANAGER_QEMU_MEMORY_SIZE",
    "cpus": "MANAGER_QEMU_SMP_COUNT",
    "accelerator": "MANAGER_QEMU_ACCELERATOR",
    "confidential": "MANAGER_QEMU_CONFIDENTIAL",
    "scratch_mib": "MANAGER_QEMU_SCRATCH_SIZE",
    "guest_port": "MANAGER_QEMU_GUEST_FWD_AGENT",
    "authorized_keys": "MANAGER_GUEST_AUTHORIZED_KEYS",
    "ovmf_code": "MANAGER_QEMU_OVMF_CODE_FILE",
    "ovmf_variables": "MANAGER_QEMU_OVMF_VARS_FILE",
    "ovmf_confidential": "MANAGER_QEMU_OVMF_FILE",
}
"""Setting → variable."""

_UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def _mebibytes(value: object) -> object:
    """Read a size as QEMU writes it: 2048, 2048M or 2G are the same."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"([0-9]{1,9})([MGT]?)", value.strip())
    if found is None:
        raise ValueError(f"{value[:50]!r} is no size, such as 4G or 512M")
    return int(found[1]) * _UNITS[found[2]]


Port = Annotated[int, Field(ge=0, le=65535)]
Mebibytes = Annotated[int, BeforeValidator(_mebibytes)]


def default_state_folder() -> Path:
    """Return where state is kept when nobody says otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/cocos/manager")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "cocos" / "manager"


class ManagerConfig(BaseModel):
    """What a manager needs to know.

    Attributes:
        grpc_host: Where the API listens.
        grpc_port: Its port; 0 takes any free one.
        server_cert: PEM certificate chain of the API; with ``server_key`` it speaks TLS.
        server_key: PEM private key of it.
        client_ca: PEM certificates that clients' certificates must chain to.
        insecure_api: Let anybody who reaches the API start VMs.
        allow_users: Who may use the API without a certificate, besides our own user and root.
        http_host: Where ``/health`` and ``/metrics`` listen.
        http_port: Their port; 0 takes any free one.
        max_vms: Most VMs at a time; 0 or less: no limit.
        backend: Kind of VM.
        state_folder: What survives the manager.
        eos_version: Version of the guest's system, as ``CVMInfo`` reports it.
        instance_id: Name of this manager in ``/health``.
        keep_vms: Whether VMs run on when the manager stops, for the next one to take over.
        image_folder: Of the VMs' image; by default where ``cocos-cli image build`` puts it.
        memory_mib: Memory of a VM, in MiB; 2048M and 2G are understood, too.
        cpus: Processors of a VM.
        accelerator: ``kvm``, ``tcg``, or ``auto`` for what a probe VM shows to work.
        confidential: ``auto`` to encrypt the memory of VMs where the host can, who cannot attest
            then: the guest has no attester for it yet; ``none``.
        scratch_mib: Size of the disk for images and results; takes only what is used.
        guest_port: Port of the guest that a port of ours leads to.
        authorized_keys: File with SSH keys that debug images let in.
        ovmf_code: Firmware, code.
        ovmf_variables: Firmware, variables that every VM begins with.
        ovmf_confidential: Firmware of VMs with encrypted memory, in one file, instead of
            the image's own, which the image's reference values are for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    grpc_host: str = "localhost"
    grpc_port: Port = 7020
    server_cert: Path | None = None
    server_key: Path | None = None
    client_ca: Path | None = None
    insecure_api: bool = False
    allow_users: tuple[str, ...] = ()
    http_host: str = "localhost"
    http_port: Port = 7003
    max_vms: int = 10
    backend: str = DEFAULT_BACKEND
    state_folder: Path = Field(default_factory=default_state_folder)
    eos_version: str = ""
    instance_id: str = ""
    keep_vms: bool = False
    image_folder: Path | None = None
    memory_mib: Mebibytes = Field(default=2048, ge=128)
    cpus: int = Field(default=2, ge=1, le=255)
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    confidential: Literal["auto", "none"] = "none"
    scratch_mib: Mebibytes = Field(default=16 * 1024, ge=1)
    guest_port: Port = DEFAULT_GUEST_PORT
    authorized_keys: Path | None = None
    ovmf_code: Path = OVMF_CODE
    ovmf_variables: Path = OVMF_VARIABLES
    ovmf_confidential: Path | None = None

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if (self.server_cert is None) != (self.server_key is None):
            raise ValueError("server_cert and server_key belong together")
        if self.client_ca is not None and self.server_cert is None:
            raise ValueError("client_ca needs server_cert and server_key")
        if self.client_ca is None and not self.insecure_api and not is_loopback(self.grpc_host):
            raise ValueError(
                f"on {self.grpc_host} anybody could start VMs: set server_cert, server_key and "
                "client_ca, or say --insecure-api"
            )
        return self

    @property
    def firmware(self) -> Firmware:
        """What VMs with a TPM boot with."""
        return Firmware(self.ovmf_code, self.ovmf_variables)

    @property
    def tpm_ca_folder(self) -> Path:
        """Where the CA of the VMs' TPMs is."""
        return self.state_folder / "tpm-ca"

    @property
    def grpc_address(self) -> str:
        """Where the API listens, ``host:port``."""
        return _join(self.grpc_host, self.grpc_port)

    @property
    def http_address(self) -> str:
        """Where health and metrics listen, ``host:port``."""
        return _join(self.http_host, self.http_port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
