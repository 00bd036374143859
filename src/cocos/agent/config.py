# SPDX-License-Identifier: Apache-2.0
"""Settings of the agent; the names of the variables are those of the original."""

import os
import tempfile
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cocos.errors import FormatError
from cocos.host.containers.container import MIB, Limits
from cocos.wire.aa_kbc_params import AaKbcParams
from cocos.wire.kbs.protocol import ResourceUri

GUEST_WORK_FOLDER: Final = Path("/cocos")

ENVIRONMENT: Final = {
    "cvm_id": "AGENT_CVM_ID",
    "cvms_url": "AGENT_CVM_GRPC_URL",
    "cvms_client_cert": "AGENT_CVM_GRPC_CLIENT_CERT",
    "cvms_client_key": "AGENT_CVM_GRPC_CLIENT_KEY",
    "cvms_server_ca": "AGENT_CVM_GRPC_SERVER_CA_CERTS",
    "attestation_agent": "COCOS_AA_ADDRESS",
    "keyprovider_config": "OCICRYPT_KEYPROVIDER_CONFIG",
    "registries": "CONTAINERS_REGISTRIES_CONF",
    "authfile": "REGISTRY_AUTH_FILE",
    "extra_root_certificates": "EXTRA_ROOT_CERTIFICATES",
    "authenticated_registry_credentials_uri": "AUTHENTICATED_REGISTRY_CREDENTIALS_URI",
    "work_folder": "COCOS_WORK_FOLDER",
    "retry_seconds": "COCOS_RETRY_SECONDS",
    "once": "AGENT_ONCE",
    "insecure_without_cgroups": "COCOS_INSECURE_WITHOUT_CGROUPS",
}
"""Setting → variable."""


class AgentSettings(BaseModel):
    """Everything the agent is told at its start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cvm_id: str = ""
    """Sent to the CVMS as metadata ``job-id``."""
    cvms_url: str = "localhost:7001"
    """Where the CVMS is."""
    cvms_client_cert: Path | None = None
    """PEM certificate chain, for mutual TLS."""
    cvms_client_key: Path | None = None
    """PEM private key of it."""
    cvms_server_ca: Path | None = None
    """PEM certificates that the CVMS must chain to; turns TLS on."""
    attestation_agent: str = "127.0.0.1:50002"
    """``host:port`` or ``unix:/path``."""
    keyprovider_config: Path = Path("/etc/ocicrypt_keyprovider.conf")
    """ocicrypt's file that names the key provider."""
    registries: Path | None = None
    """A registries.conf; by default registries on loopback, and only those, may speak http."""
    authfile: Path | None = None
    """Credentials for registries."""
    extra_root_certificates: Path | None = None
    """PEM certificates that registries may chain to, beside the system's."""
    authenticated_registry_credentials_uri: str | None = None
    """``kbs:///repository/type/tag``: credentials for private registries, at the KBS."""
    aa_kbc_params: str | None = None
    """``cc_kbc::URL``: the KBS that has those credentials."""
    work_folder: Path | None = None
    """Where images are unpacked; see :meth:`work`."""
    once: bool = False
    """End with the computation, as soon as the CVMS has stored how it ended, and the result."""
    insecure_without_cgroups: bool = False
    """Run algorithms although their memory and processes can hardly be limited."""
    retry_seconds: float = Field(default=60, ge=0, le=86_400)
    """How long a computation waits, in all, for a registry or KBS that does not answer now."""
    memory_mib: int = Field(default=2048, ge=16)
    """Memory of an algorithm, in MiB, with what it puts into ``/tmp``."""
    processes: int = Field(default=1024, ge=1)
    """Processes and threads of an algorithm."""
    run_seconds: float | None = Field(default=None, gt=0)
    """How long an algorithm may run; None: for ever."""
    result_mib: int = Field(default=512, ge=1)
    """Largest result, in MiB."""

    @field_validator(
        "keyprovider_config", "registries", "authfile", "extra_root_certificates", "work_folder"
    )
    @classmethod
    def _from_anywhere(cls, path: Path | None) -> Path | None:
        """Tools that are given these paths work in folders of their own."""
        return path and path.absolute()

    @model_validator(mode="after")
    def _credentials_have_a_kbs(self) -> Self:
        try:
            if self.registry_credentials is not None and self.kbs is None:
                raise ValueError("the registries' credentials need a KBS: AA_KBC_PARAMS")
        except FormatError as error:
            raise ValueError(error.message) from error
        return self

    @property
    def registry_credentials(self) -> ResourceUri | None:
        """Credentials for private registries."""
        text = self.authenticated_registry_credentials_uri
        return ResourceUri.parse(text) if text else None

    @property
    def kbs(self) -> str | None:
        """Address of the KBS that has them."""
        params = AaKbcParams.parse(self.aa_kbc_params) if self.aa_kbc_params else None
        return None if params is None or params.kbs is None else str(params.kbs)

    def work(self) -> Path:
        """Return the work folder: as set, else ``/cocos`` in a CVM, else a new private one."""
        if self.work_folder is not None:
            return self.work_folder
        if os.access(GUEST_WORK_FOLDER, os.W_OK):
            return GUEST_WORK_FOLDER
        return Path(tempfile.mkdtemp(prefix="cocos-agent-"))

    def limits(self) -> Limits:
        """Return what an algorithm may use."""
        return Limits(
            memory_bytes=self.memory_mib * MIB,
            processes=self.processes,
            tmp_bytes=self.memory_mib * MIB // 4,
            file_bytes=self.result_mib * MIB,
            seconds=self.run_seconds,
        )
