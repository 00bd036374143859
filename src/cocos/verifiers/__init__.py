# SPDX-License-Identifier: Apache-2.0
"""Verifiers of evidence, one per TEE, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from cocos._clock import Clock
from cocos.errors import EvidenceError, Finding
from cocos.verifiers._base import Authentic, Demand, Expected, Kept, Part, Verifier
from cocos.verifiers.amd.authorities import Authorities as AmdAuthorities
from cocos.verifiers.amd.authorities import Authority
from cocos.verifiers.az_snp_vtpm import AzureSnpVerifier
from cocos.verifiers.az_tdx_vtpm import AzureTdxVerifier
from cocos.verifiers.cca import CcaVerifier
from cocos.verifiers.collateral import Collateral, Held
from cocos.verifiers.nvidia import NvidiaVerifier
from cocos.verifiers.sample import InsecureSampleDeviceVerifier, InsecureSampleVerifier
from cocos.verifiers.sgx import SgxVerifier
from cocos.verifiers.snp import SnpVerifier
from cocos.verifiers.tdx import TdxVerifier
from cocos.verifiers.tpm import Authorities, TpmVerifier
from cocos.wire.kbs.protocol import Tee

__all__ = [
    "INSECURE_SAMPLE_FLAG",
    "Authentic",
    "CcaVerifier",
    "Demand",
    "Expected",
    "InsecureRoots",
    "Kept",
    "NvidiaVerifier",
    "Part",
    "Verifier",
    "VerifierTable",
    "verifier_table",
]

INSECURE_SAMPLE_FLAG: Final = "--insecure-allow-sample"

_INSECURE_SAMPLE: tuple[type[Verifier], ...] = (
    InsecureSampleVerifier,
    InsecureSampleDeviceVerifier,
)

_ABSENT: Final[Mapping[Tee, str]] = {
    Tee.CSV: "its chain begins at Hygon's root key (HRK), signs with SM2, and takes the "
    "processor's certificates from Hygon's service (cert.hygon.cn); none of them is here",
    Tee.HYGON_DCU: "its reports are verified with Hygon's root key and service (cert.hygon.cn), "
    "by Hygon's own library; none of them is here",
    Tee.NVIDIA_DPU: "NVIDIA publishes no root of its DPUs that could be pinned here",
    Tee.SE: "IBM Secure Execution answers a request that only a verifier with the host key "
    "documents of IBM and the header of the guest's own image can make; those are not here",
}
"""Why there is no verifier of what could have one."""


class VerifierTable:
    """The verifiers that this service has."""

    def __init__(self, verifiers: Mapping[Tee, Verifier]) -> None:
        self._verifiers = dict(verifiers)

    def get(self, tee: Tee) -> Verifier | None:
        """Return the verifier for a TEE, or None."""
        return self._verifiers.get(tee)

    def find(self, tee: Tee) -> Verifier:
        """Return the verifier for a TEE.

        Raises:
            EvidenceError: there is none, or the operator has not allowed it.
        """
        found = self._verifiers.get(tee)
        if found is not None:
            return found
        if tee in {kind.kind for kind in _INSECURE_SAMPLE}:
            raise EvidenceError(
                f"{tee} evidence proves nothing and is not accepted here; "
                f"an operator can allow it for trials with {INSECURE_SAMPLE_FLAG}",
                findings=(Finding("tee", "insecure evidence is not allowed", tee),),
                hint=f"for trials: kbs {INSECURE_SAMPLE_FLAG}",
            )
        why = _ABSENT.get(tee, "there is no verifier")
        raise EvidenceError(
            f"evidence of {tee} cannot be verified here: {why}",
            findings=(Finding("tee", why, tee, ", ".join(self._verifiers)),),
        )


@dataclass(frozen=True, slots=True)
class InsecureRoots:
    """Roots in the places of makers', for trials: whoever has their keys makes any evidence.

    Attributes:
        amd: ARK, with ASK and ASVK below it; stands beside AMD's.
        intel: Certifies the CAs of processors' keys and who signs Intel's documents.
        nvidia: Certifies devices of GPUs.
    """

    amd: Authority | None = None
    intel: x509.Certificate | None = None
    nvidia: x509.Certificate | None = None


def verifier_table(
    *,
    insecure_allow_sample: bool,
    clock: Clock,
    tpm: Authorities | None = None,
    collateral: Collateral | None = None,
    insecure_roots: InsecureRoots | None = None,
) -> VerifierTable:
    """Return the table of verifiers.

    Args:
        insecure_allow_sample: Also believe sample evidence, which anybody can make.
        clock: For the validity of certificates.
        tpm: Who certifies endorsement keys of TPMs; without, nobody does.
        collateral: What makers publish; without, evidence that needs some is refused.
        insecure_roots: Believed instead of makers' roots; without, none is.
    """
    stored = collateral or Held()
    roots = insecure_roots or InsecureRoots()
    amd = AmdAuthorities({} if roots.amd is None else {"amd": roots.amd})
    genuine: tuple[Verifier, ...] = (
        CcaVerifier(),
        AzureTdxVerifier(stored, clock=clock, insecure_root=roots.intel),
        NvidiaVerifier(clock=clock, insecure_root=roots.nvidia),
        SgxVerifier(stored, clock=clock, insecure_root=roots.intel),
        TdxVerifier(stored, clock=clock, insecure_root=roots.intel),
        TpmVerifier(tpm or Authorities(), clock=clock),
        SnpVerifier(amd, stored, clock=clock),
        AzureSnpVerifier(amd, stored, clock=clock),
    )
    insecure = (kind() for kind in _INSECURE_SAMPLE) if insecure_allow_sample else ()
    return VerifierTable({verifier.kind: verifier for verifier in (*genuine, *insecure)})
