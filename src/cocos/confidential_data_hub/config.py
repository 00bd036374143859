# SPDX-License-Identifier: Apache-2.0
"""Settings of the confidential data hub, under the names of the guest components."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cocos.clients.resources import REQUEST_SECONDS
from cocos.errors import FormatError
from cocos.host.offline_fs import FILES
from cocos.transport.loopback import local_address
from cocos.wire.aa_kbc_params import KBS, AaKbcParams, one_source
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourceUri

DEFAULT_ADDRESS = "unix:///run/confidential-containers/cdh.sock"
AGENT_ADDRESS = "127.0.0.1:50002"
CREDENTIALS = Path("/run/confidential-containers/cdh/kbs")
SEALED_SECRET_KEYS = Path("/run/confidential-containers/cdh/sealed-secret")


def _url(text: str) -> str:
    try:
        return str(KbsAddress.parse(text))
    except FormatError as error:
        raise ValueError(error.message) from error


def _uri(text: str) -> str:
    try:
        return str(ResourceUri.parse(text))
    except FormatError as error:
        raise ValueError(error.message) from error


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentConfig(_Frozen):
    """The attestation agent."""

    aa_socket: str = AGENT_ADDRESS


class KbcConfig(_Frozen):
    """Where resources come from."""

    name: Literal["cc_kbc", "offline_fs_kbc"]
    url: Annotated[str, AfterValidator(_url)] | None = None
    """Address of the KBS (:mod:`cocos.wire.kbs.address`), for ``cc_kbc``."""
    kbs_cert: str | None = None
    """A CA that the KBS is known by, PEM."""

    @model_validator(mode="after")
    def _complete(self) -> "KbcConfig":
        if self.name == KBS and self.url is None:
            raise ValueError("cc_kbc needs a url")
        try:
            self.source()
        except FormatError as error:
            raise ValueError(error.message) from error
        return self

    def source(self) -> AaKbcParams:
        """Return the same as parameters.

        Raises:
            FormatError: ``kbs_cert`` and ``url`` do not go together.
        """
        address = KbsAddress.parse(self.url) if self.name == KBS and self.url else None
        if address is not None and self.kbs_cert is not None:
            address = address.with_ca(self.kbs_cert)
        return AaKbcParams(self.name, address)


class Credential(_Frozen):
    """A resource that is written to a file at the start."""

    resource_uri: Annotated[str, AfterValidator(_uri)]
    path: Path

    @model_validator(mode="after")
    def _inside(self) -> "Credential":
        parts = PurePosixPath(self.path).parts
        inside = PurePosixPath(self.path).is_relative_to(CREDENTIALS)
        if ".." in parts or not inside or self.path == CREDENTIALS:
            raise ValueError(f"{self.path} is not below {CREDENTIALS}")
        return self


class LogConfig(_Frozen):
    """Logs."""

    level: str = "info"


class ConfigFile(_Frozen):
    """The guest components' configuration file: in a VM, part of what the host passed in."""

    socket: Annotated[str, AfterValidator(local_address)] = DEFAULT_ADDRESS
    aa: AgentConfig = AgentConfig()
    kbc: KbcConfig | None = None
    credentials: tuple[Credential, ...] = ()
    image: dict[str, Any] = Field(default_factory=dict)
    """For pulling images, which this hub does not do."""
    skip_sealed_secret_verification: bool = False
    log: LogConfig = LogConfig()
    retry_seconds: float = Field(default=30, ge=0, lt=REQUEST_SECONDS)
    """How long a request waits for a KBS that does not answer now."""


class Settings(ConfigFile):
    """Everything the hub is told."""

    allow_users: tuple[str, ...] = ()
    """Users of this machine to serve besides our own and root, by name or number."""
    aa_kbc_params: str | None = None
    """``cc_kbc::URL`` or ``offline_fs_kbc::null``, if the file names no other ``kbc``."""
    offline_files: tuple[Path, ...] = FILES
    """Files of ``offline_fs_kbc``, in order; later ones win."""
    sealed_secret_keys: Path = SEALED_SECRET_KEYS
    """Folder of keys that verify sealed secrets."""
    insecure_skip_sealed_secret_verification: bool = False
    """Take sealed secrets from anybody."""
    insecure_ctr: bool = False
    """Take A256CTR, too, which shows no change of what is encrypted."""

    @model_validator(mode="after")
    def _insecure_by_name(self) -> "Settings":
        if (
            self.skip_sealed_secret_verification
            and not self.insecure_skip_sealed_secret_verification
        ):
            raise ValueError(
                "skip_sealed_secret_verification lets anybody choose what a sealed secret says; "
                "start with --insecure-skip-sealed-secret-verification if that is meant"
            )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> "Settings":
        try:
            self.source()
        except FormatError as error:
            raise ValueError(error.message) from error
        return self

    def source(self) -> AaKbcParams | None:
        """Return where resources come from: what the file says, else ``aa_kbc_params``.

        Raises:
            FormatError: these are malformed, or say different things.
        """
        params = None if self.aa_kbc_params is None else AaKbcParams.parse(self.aa_kbc_params)
        told = None if self.kbc is None else self.kbc.source()
        if told is None or told.kbs is not None:
            return one_source(None if told is None else told.kbs, params, setting="kbc")
        if params not in {None, told, AaKbcParams(KBS)}:
            raise FormatError("kbc and aa_kbc_params name different sources; leave one out")
        return told
