# SPDX-License-Identifier: Apache-2.0
"""What Intel's documents say of the platform that a quote is from.

dcap-qvl judges signatures, certificates, revocations, times, the quoting enclave and the
TDX module. The level is read here a second time, because the library says nothing of it
for a domain with attributes that it does not like; those are the policy's business. What
the library leaves out is checked here, too.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any, Final

import dcap_qvl
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cocos._types import JsonObject
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.quote import Quote, TdReport
from cocos.verifiers.collateral import Collateral
from cocos.verifiers.intel import levels
from cocos.verifiers.intel.chain import Pck
from cocos.verifiers.intel.collateral import Documents, Kind
from cocos.verifiers.intel.levels import QeIdentity, TcbInfo

# The last thing that dcap-qvl 0.7 looks at: everything else holds when it says so.
_ATTRIBUTES: Final = frozenset(
    f"Verification failed: {problem}"
    for problem in ("Debug mode is enabled", "SEPT_VE_DISABLE is not enabled")
)
_TCB_SIGNER: Final = "Intel SGX TCB Signing"
_TYPES: Final = ("Standard", "Scalable", "Scalable with Integrity")


@dataclass(frozen=True, slots=True)
class Appraiser:
    """Judges platforms.

    Attributes:
        collateral: Where Intel's documents are.
        root: Believed instead of Intel's, which proves nothing.
    """

    collateral: Collateral
    root: x509.Certificate | None = None

    def claims(self, quote: Quote, pck: Pck, now: dt.datetime, step: str) -> JsonObject:
        """Return what a policy is told of the platform; takes milliseconds.

        Args:
            quote: Its signatures hold.
            pck: Its certificates, which hold.
            now: The time that everything is judged at.
            step: What findings' names begin with.

        Raises:
            EvidenceError: documents are missing, do not hold any more, or something in the
                platform is revoked, unknown, or not what they describe.
        """
        kind: Kind = "tdx" if isinstance(quote.body, TdReport) else "sgx"
        try:
            found = Documents.collect(self.collateral, kind, pck.fmspc, pck.ca, now)
            info = msgspec.json.decode(found.tcb_info.text, type=TcbInfo)
            identity = msgspec.json.decode(found.qe_identity.text, type=QeIdentity)
            status = self._library(quote, found, now, step)
            _check_rest(step, found, info, pck)
            verdict = levels.verdict(quote, pck, info, identity)
            return _claims(verdict, status, pck, found, info, identity)
        except (FormatError, msgspec.MsgspecError, *UNREADABLE) as error:
            problem = f"Intel's documents cannot be read: {error}"
            raise _refused(step, "collateral", problem) from error

    def _library(self, quote: Quote, found: Documents, now: dt.datetime, step: str) -> str | None:
        """Return the library's TCB status; None where it says nothing of it."""
        root = None if self.root is None else self.root.public_bytes(serialization.Encoding.DER)
        seconds = int(now.timestamp())
        collateral = dcap_qvl.QuoteCollateralV3(
            found.pck_chain,
            found.root_crl,
            found.pck_crl,
            found.tcb_chain,
            found.tcb_info.text.decode(),
            found.tcb_info.signature,
            found.tcb_chain,
            found.qe_identity.text.decode(),
            found.qe_identity.signature,
        )
        try:
            verdict = dcap_qvl.QuoteVerifier(root).verify_with_policy(
                quote.raw, collateral, seconds, dcap_qvl.QuotePolicy.claims_only(seconds)
            )
        except ValueError as error:
            if str(error) in _ATTRIBUTES:
                return None
            problem = str(error).removeprefix("Verification failed: ")
            raise _refused(step, "dcap", f"dcap-qvl refuses the quote: {problem}") from error
        status: str = msgspec.json.decode(verdict.to_json())["tcb"]["status"]
        return status


def _refused(tee: str, step: str, problem: str, *texts: str) -> EvidenceError:
    return EvidenceError(
        f"the {tee} evidence does not hold: {problem}",
        findings=(Finding(f"{tee}.{step}", problem, *texts),),
    )


def _check_rest(step: str, found: Documents, info: TcbInfo, pck: Pck) -> None:
    """What dcap-qvl does not look at; signatures hold by now.

    Raises:
        EvidenceError: it is about another platform, of a kind that nobody knows, or signed
            by a key of Intel's that is for something else.
    """
    if info.pce_id.lower() != pck.pceid.hex():
        problem = "the TCB info is of another provisioning enclave"
        raise _refused(step, "pceid", problem, pck.pceid.hex(), info.pce_id)
    if info.tcb_type != 0:
        raise _refused(step, "tcb-info", "the TCB info is of an unknown type", str(info.tcb_type))
    signer = x509.load_pem_x509_certificates(found.tcb_chain.encode())[0]
    name = signer.subject.rfc4514_string()
    if f"CN={_TCB_SIGNER}" not in name.split(","):
        problem = "the TCB info is not signed by the key that is for it"
        raise _refused(step, "tcb-signer", problem, name, _TCB_SIGNER)


def _claims(  # noqa: PLR0917 - everything that there is to tell
    verdict: levels.Verdict,
    status: str | None,
    pck: Pck,
    found: Documents,
    info: TcbInfo,
    identity: QeIdentity,
) -> JsonObject:
    crls = [x509.load_der_x509_crl(crl) for crl in (found.pck_crl, found.root_crl)]
    chains = (found.tcb_chain, found.pck_chain)
    certificates = [
        *pck.chain,
        *(each for chain in chains for each in x509.load_pem_x509_certificates(chain.encode())),
    ]
    issued = [
        *(each.not_valid_before_utc for each in certificates),
        *(crl.last_update_utc for crl in crls),
        *(each.issue_date for each in (info, identity)),
    ]
    expires = [
        *(each.not_valid_after_utc for each in certificates),
        *(crl.next_update_utc for crl in crls if crl.next_update_utc is not None),
        *(each.next_update for each in (info, identity)),
    ]
    numbers = [_number(crl) for crl in crls]
    claims: JsonObject = {
        "tcb_status": status or verdict.status.value,
        "tcb_date": _time(verdict.date),
        "advisory_ids": list(verdict.advisories),
        "collateral_expiration_status": "0",  # expired documents were refused
        "earliest_issue_date": _time(min(issued)),
        "latest_issue_date": _time(max(issued)),
        "earliest_expiration_date": _time(min(expires)),
        "tcb_eval_num": min(info.evaluation, identity.evaluation),
        "pck_crl_num": numbers[0],
        "root_ca_crl_num": numbers[1],
        "platform_provider_id": pck.ppid.hex(),
        "root_key_id": _root_key_id(pck.chain[-1]),
        "sgx_type": _TYPES[pck.sgx_type] if pck.sgx_type < len(_TYPES) else "Unknown",
        "fmspc": pck.fmspc.hex(),
    }
    if pck.instance is not None:
        claims["platform_instance_id"] = pck.instance.hex()
    if pck.sgx_type > 0:
        names = ("is_dynamic_platform", "is_cached_keys", "is_smt_enabled")
        claims |= dict(zip(names, pck.flags or (False,) * 3, strict=True))
    return claims


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _root_key_id(root: x509.Certificate) -> str:
    point: Any = root.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return hashlib.sha384(point).hexdigest()


def _time(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
