# SPDX-License-Identifier: Apache-2.0
"""Settings of the attestation agent, under the names of the guest components."""

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from cocos.crypto.tee_key import ALGORITHMS, EC_P256
from cocos.errors import FormatError
from cocos.host.tpm import BOOT_LOG, COMMAND_LINE
from cocos.transport.loopback import local_address
from cocos.wire.aa_kbc_params import AaKbcParams, one_source
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.generations import Generation

DEFAULT_ADDRESS = "127.0.0.1:50002"
_PERSISTENT = range(0x81000000, 0x82000000)


def _algorithm(name: str) -> str:
    if name not in ALGORITHMS:
        raise ValueError(f"one of {', '.join(ALGORITHMS)}")
    return name


def _handle(text: object) -> object:
    if not isinstance(text, str):
        return text
    number = int(text, 16)
    if number not in _PERSISTENT:
        raise ValueError(f"{text} is no persistent handle: 0x81000000 to 0x81ffffff")
    return number


def _kbc(params: str) -> str:
    try:
        AaKbcParams.parse(params)
    except FormatError as error:
        raise ValueError(error.message) from error
    return params


def _kbs(url: str) -> str:
    try:
        return str(KbsAddress.parse(url))
    except FormatError as error:
        raise ValueError(error.message) from error


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KbsConfig(_Frozen):
    """Where ``kbs`` tokens come from."""

    url: Annotated[str, AfterValidator(_kbs)]
    """Address of the KBS (:mod:`cocos.wire.kbs.address`)."""
    cert: str | None = None
    """A CA that the KBS is known by: PEM text, or the path of a PEM file."""
    tee_key_algorithm: Annotated[str, AfterValidator(_algorithm)] = EC_P256
    """Kind of the key pair that tokens speak of."""
    oldest_protocol: Generation | None = None
    """The oldest protocol to speak with a KBS that knows nothing newer, whatever it loses."""

    def address(self, ca: str | None) -> KbsAddress:
        """Return which KBS, and what it is known by.

        Args:
            ca: Text of ``cert``.

        Raises:
            FormatError: ``cert`` and ``url`` do not go together.
        """
        address = KbsAddress.parse(self.url)
        return address if ca is None else address.with_ca(ca)


class CocoAsConfig(_Frozen):
    """Where ``coco_as`` tokens come from: an attestation service."""

    url: str
    """``http://`` or ``https://`` (REST); ``grpc://``, ``grpcs://`` or ``unix:/PATH`` (gRPC)."""
    cert: str | None = None
    """The only CA to trust: PEM text, or the path of a PEM file."""


class TokenConfigs(_Frozen):
    """Sources of tokens."""

    kbs: KbsConfig | None = None
    coco_as: CocoAsConfig | None = None


class EventlogConfig(_Frozen):
    """Runtime measurements."""

    enable_eventlog: bool = False
    init_pcr: int | None = Field(default=None, ge=0, le=23)
    """Register of runtime events, as a PCR number; by default the platform's own."""
    eventlog_algorithm: str | None = None
    """Of older files, without effect: the platform has one hash."""


class LogConfig(_Frozen):
    """Logs."""

    level: str = "info"


class ConfigFile(_Frozen):
    """The guest components' configuration file: in a VM, part of what the host passed in.

    It must not hold what decides whose evidence is shown: the TPM, its logs, sample
    evidence. Those come from the image, as flags and variables.
    """

    token_configs: TokenConfigs = TokenConfigs()
    eventlog_config: EventlogConfig = EventlogConfig()
    log: LogConfig = LogConfig()


class Settings(ConfigFile):
    """Everything the attestation agent is told."""

    # Callers get private keys.
    attestation_sock: Annotated[str, AfterValidator(local_address)] = DEFAULT_ADDRESS
    """``HOST:PORT`` on loopback, or ``unix:/PATH``."""
    allow_users: tuple[str, ...] = ()
    """Users of this machine to serve besides our own and root, by name or number."""
    aa_kbc_params: Annotated[str, AfterValidator(_kbc)] | None = None
    """``cc_kbc::URL`` or ``offline_fs_kbc::null``, if ``token_configs`` names no other KBS."""
    insecure_sample: bool = False
    """Accept evidence that proves nothing when no TEE is found."""
    sample_device: bool = False
    """Claim a device beside the TEE; its evidence proves nothing, either."""
    initdata_digest: str | None = None
    """Standard base64 of the digest of the init data."""
    initdata_toml: Path | None = None
    """File of the init data; wins over the digest."""
    tpm: str | None = None
    """The TPM: path of a device, or a TCTI; by default ``/dev/tpmrm0`` if there is one."""
    tpm_ak_handle: Annotated[int | None, BeforeValidator(_handle)] = None
    """Persistent handle of an attestation key in the TPM; without, one is derived."""
    tpm_event_log: Path = BOOT_LOG
    """What the firmware measured."""
    command_line: Path = COMMAND_LINE
    """The kernel's command line."""
    aael_path: Path = Path("/run/attestation-agent/eventlog")
    """Log of runtime events; of this boot, therefore below ``/run``."""

    @model_validator(mode="after")
    def _one_kbs(self) -> "Settings":
        config, params = self.token_configs.kbs, self.aa_kbc_params
        try:
            one_source(
                None if config is None else KbsAddress.parse(config.url),
                None if params is None else AaKbcParams.parse(params),
                setting="token_configs.kbs",
            )
        except FormatError as error:
            raise ValueError(error.message) from error
        return self

    def kbs(self) -> KbsConfig | None:
        """Return the KBS for tokens: of the file, else of ``aa_kbc_params``."""
        if self.token_configs.kbs is not None or self.aa_kbc_params is None:
            return self.token_configs.kbs
        kbs = AaKbcParams.parse(self.aa_kbc_params).kbs
        return None if kbs is None else KbsConfig(url=str(kbs))
