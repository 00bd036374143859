# SPDX-License-Identifier: Apache-2.0
"""Settings of the key provider."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from cocos.errors import FormatError
from cocos.host.offline_fs import FILES
from cocos.transport.loopback import local_address
from cocos.wire.aa_kbc_params import OFFLINE, AaKbcParams, one_source
from cocos.wire.kbs.address import KbsAddress

DEFAULT_ADDRESS = "127.0.0.1:50011"
AGENT_ADDRESS = "127.0.0.1:50002"


def _kbc(text: str) -> str:
    try:
        AaKbcParams.parse(text)
    except FormatError as error:
        raise ValueError(error.message) from error
    return text


def _url(text: str) -> str:
    try:
        return str(KbsAddress.parse(text))
    except FormatError as error:
        raise ValueError(error.message) from error


class Settings(BaseModel):
    """Everything the key provider is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    socket: Annotated[str, AfterValidator(local_address)] = DEFAULT_ADDRESS
    """``HOST:PORT`` on loopback, or ``unix:/PATH``: callers get layer keys."""
    allow_users: tuple[str, ...] = ()
    """Users of this machine to serve besides our own and root, by name or number."""
    kbs: Annotated[str, AfterValidator(_url)] | None = None
    """Address of the KBS (:mod:`cocos.wire.kbs.address`)."""
    aa_kbc_params: Annotated[str, AfterValidator(_kbc)] | None = None
    """``cc_kbc::URL`` or ``offline_fs_kbc::null``, if ``kbs`` names no other."""
    offline_files: tuple[Path, ...] = FILES
    """Files of ``offline_fs_kbc``, in order; later ones win."""
    kbs_ca: Path | None = None
    """The only CA to trust for KBSs whose address names nothing to know them by, PEM."""
    auth_private_key: Path | None = None
    """Ed25519 key of the KBS's administrator, PEM: new keys are made and registered."""
    admin_token_file: Path | None = None
    """Instead of that key: a file with a token of the administrator."""
    admin_role: str | None = None
    """Claim ``role`` of tokens that are made with ``auth_private_key``."""
    admin_issuer: str | None = None
    """Their claim ``iss``."""
    admin_audience: str | None = None
    """Their claim ``aud``."""
    key_policy: Path | None = None
    """With either: the resource policy of each new key, Rego."""
    keys: Path | None = None
    """The owner's key folder."""
    aa: str | None = None
    """Address of the attestation agent."""
    initdata_toml: Path | None = None
    """What the host passed in, for the KBS to appraise."""
    insecure_sample: bool = False
    """Without an agent's address: evidence that proves nothing; and the sample key."""
    insecure_ctr: bool = False
    """Wrap and unwrap with A256CTR, too: nobody notices when such a packet is changed."""

    @model_validator(mode="after")
    def _one_kbs(self) -> "Settings":
        try:
            self._source()
        except FormatError as error:
            raise ValueError(error.message) from error
        return self

    def _source(self) -> AaKbcParams | None:
        named = None if self.kbs is None else KbsAddress.parse(self.kbs)
        params = None if self.aa_kbc_params is None else AaKbcParams.parse(self.aa_kbc_params)
        return one_source(named, params, setting="kbs")

    @property
    def address(self) -> str | None:
        """The KBS: ``kbs``, else that of ``aa_kbc_params``."""
        source = self._source()
        return None if source is None or source.kbs is None else str(source.kbs)

    @property
    def offline(self) -> bool:
        """Whether keys come from files of this machine."""
        source = self._source()
        return source is not None and source.kbc == OFFLINE
