# SPDX-License-Identifier: Apache-2.0
"""What Intel publishes about its processors, as its Provisioning Certification Service does.

Documents are kept as they were served, beside the certificates that came in their headers;
whoever reads them checks signatures and times again, each time.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from cocos.errors import EvidenceError, Finding, FormatError
from cocos.verifiers.collateral import Collateral, fetch_command

Kind: TypeAlias = Literal["sgx", "tdx"]
TCB_CHAIN: Final = "intel/chain/tcb"
"""Who signs TCB infos and QE identities: PEM, the root last."""
ROOT_CRL: Final = "intel/crl/root"
"""Revoked certificates of CAs: DER."""


def tcb_info(kind: Kind, fmspc: bytes) -> str:
    """Name of the levels of a kind of platform: JSON."""
    return f"intel/tcb/{kind}/{fmspc.hex()}"


def qe_identity(kind: Kind) -> str:
    """Name of the description of the quoting enclave: JSON."""
    return f"intel/qe/{kind}"


def pck_crl(ca: str) -> str:
    """Name of the revoked certificates of a CA of PCKs: DER."""
    return f"intel/crl/{ca}"


def pck_chain(ca: str) -> str:
    """Name of the certificates of a CA of PCKs: PEM, the root last."""
    return f"intel/chain/{ca}"


@dataclass(frozen=True, slots=True)
class Document:
    """A signed document: the text that is signed, and the signature, r ‖ s."""

    text: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Documents:
    """All that one quote is judged by.

    Attributes:
        tcb_info: Levels of the platform.
        qe_identity: Of the quoting enclave.
        tcb_chain: Who signs both, PEM.
        pck_crl: DER.
        pck_chain: Who signs it, PEM.
        root_crl: DER.
    """

    tcb_info: Document
    qe_identity: Document
    tcb_chain: str
    pck_crl: bytes
    pck_chain: str
    root_crl: bytes

    @classmethod
    def collect(
        cls, source: Collateral, kind: Kind, fmspc: bytes, ca: str, now: dt.datetime
    ) -> "Documents":
        """Return the documents for a quote.

        Raises:
            EvidenceError: some are missing or past their time; names all of them.
            FormatError: one does not have the form that Intel serves.
        """
        names = (
            tcb_info(kind, fmspc),
            qe_identity(kind),
            TCB_CHAIN,
            pck_crl(ca),
            pck_chain(ca),
            ROOT_CRL,
        )
        found = dict(_present(source, names, now))
        return cls(
            _document(found[names[0]], "tcbInfo", names[0]),
            _document(found[names[1]], "enclaveIdentity", names[1]),
            _text(found[TCB_CHAIN], TCB_CHAIN),
            found[names[3]],
            _text(found[names[4]], names[4]),
            found[ROOT_CRL],
        )


def _present(
    source: Collateral, names: tuple[str, ...], now: dt.datetime
) -> Iterator[tuple[str, bytes]]:
    lacking: list[Finding] = []
    missing: list[str] = []
    for name in names:
        try:
            yield name, source.get(name, now)
        except EvidenceError as error:
            lacking += error.findings
            missing.append(name)
    if lacking:
        raise EvidenceError(
            f"the quote cannot be judged without {len(lacking)} documents of Intel's",
            findings=tuple(lacking),
            hint=fetch_command(" ".join(missing)),
        )


def _document(data: bytes, member: str, name: str) -> Document:
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        signature = msgspec.json.decode(found["signature"], type=str)
        return Document(bytes(found[member]), bytes.fromhex(signature))
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise FormatError(f"the collateral {name} is not what Intel serves") from error


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError(f"the collateral {name} is no PEM") from error
