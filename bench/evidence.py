# SPDX-License-Identifier: Apache-2.0
"""What it costs to verify evidence of each type, and to appraise what it claims.

Evidence is of processors in software, which the tests have: the same structures and
algorithms as the makers', under roots of their own. AMD's roots have RSA keys of 4096 bits
where ours have 2048. Processor time, of all threads.
"""

import asyncio
import hashlib
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support" / "guest"))

import _azure_vm as azure
from _intel import NOW, Intel, b64, enclave, sgx_tcb_info, td
from _nvidia import ROOT, Gpu
from _snp import SIMULATED, Chip
from cryptography.hazmat.primitives import serialization

from cocos._types import JsonObject, ReportData
from cocos.attestation_service.annotate import compose
from cocos.evidence.snp_json import of_bytes
from cocos.policy import defaults
from cocos.policy.appraisal import appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy
from cocos.verifiers import Expected, NvidiaVerifier, Verifier
from cocos.verifiers.az_snp_vtpm import AzureSnpVerifier
from cocos.verifiers.az_tdx_vtpm import AzureTdxVerifier
from cocos.verifiers.sgx import SgxVerifier
from cocos.verifiers.snp import SnpVerifier
from cocos.verifiers.tdx import TdxVerifier
from cocos.verifiers.tpm import Authorities, TpmVerifier

BOUND: Final = ReportData(hashlib.sha384(b"session").digest())
ROUNDS: Final = 500
_LIBRARIES: Final = ("cryptography.", "builtins.PyQuoteVerifier", "dcap_qvl", "_hashlib")
_RULES: Final = ("trust_claims", "extensions", "findings")
_TDX_ON_AZURE: Final = bytes(8)  # attributes


@dataclass(frozen=True)
class Kind:
    """A verifier, evidence that it accepts, and what was registered for it."""

    verifier: Verifier
    evidence: Any
    values: JsonObject


@dataclass(frozen=True)
class Figures:
    """Milliseconds of processor time of one call."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Figures":
        """Summarize calls."""
        ordered = sorted(seconds)
        late = ordered[int(0.99 * (len(ordered) - 1))]
        return cls(statistics.median(ordered) * 1e3, late * 1e3)


class Crypto:
    """Counts processor time in the libraries of cryptography, in threads begun after it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begin = 0.0

    def __call__(self, _: FrameType, event: str, called: Any) -> None:
        """Take what the interpreter tells of a call."""
        if event not in {"c_call", "c_return", "c_exception"} or not _is_crypto(called):
            return
        if event == "c_call":
            self._begin = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._begin


def _is_crypto(called: Any) -> bool:
    owner = getattr(called, "__self__", None)
    kind = type(owner)
    names = f"{called.__module__}", f"{kind.__module__}.{kind.__qualname__}"
    return any(name.startswith(_LIBRARIES) for name in names)


def kinds() -> dict[str, Kind]:
    """Return one of each type."""
    sgx = Intel()
    sgx.tcb_info = sgx_tcb_info()
    sgx.qe_identity |= {"id": "QE"}
    maker, chip, gpu = Intel(), Chip(), Gpu()
    variable = azure.variable(BOUND)
    vtpm = {"version": 2, "tpm_quote": azure.quoted(BOUND)}
    spki = azure.KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    message, signature = azure.quote(BOUND)
    quoted = {
        "signature": b64(struct.pack(">HHH", 0x14, 0xB, len(signature)) + signature),
        "message": b64(message),
        "pcrs": [value.hex() for value in azure.PCRS],
    }
    snp_on_azure = {
        "hcl_report": azure.report(variable, 2, chip.report(azure.signed(variable))),
        "vcek": chip.certificate(),
    }
    tdx_on_azure = {
        "hcl_report": azure.report(variable, 4),
        "td_quote": maker.quote(td(azure.signed(variable), td_attributes=_TDX_ON_AZURE)),
    }
    sgx_quote, td_quote = sgx.quote(enclave(BOUND), version=3), maker.quote(td(BOUND))

    def as_text(members: dict[str, bytes]) -> JsonObject:
        return {**vtpm, **{name: azure.urlsafe(data) for name, data in members.items()}}

    def now() -> Any:
        return NOW

    held = maker.held()
    root = maker.root
    return {
        "snp": Kind(
            SnpVerifier(SIMULATED, clock=now), of_bytes(chip.report(BOUND), chip.certificate()), {}
        ),
        "tdx": Kind(TdxVerifier(held, clock=now, insecure_root=root), {"quote": b64(td_quote)}, {}),
        "sgx": Kind(
            SgxVerifier(sgx.held("sgx"), clock=now, insecure_root=sgx.root),
            {"quote": b64(sgx_quote)},
            {},
        ),
        "nvidia": Kind(
            NvidiaVerifier(clock=now, insecure_root=ROOT),
            {"device_evidence_list": [gpu.evidence(BOUND)]},
            {},
        ),
        "tpm": Kind(
            TpmVerifier(Authorities(), clock=now),
            {"tpm_quote": quoted, "ak_public": b64(spki)},
            {"trusted_ak": [b64(spki)]},
        ),
        "az-snp-vtpm": Kind(AzureSnpVerifier(SIMULATED, clock=now), as_text(snp_on_azure), {}),
        "az-tdx-vtpm": Kind(
            AzureTdxVerifier(held, clock=now, insecure_root=root), as_text(tdx_on_azure), {}
        ),
    }


async def _verify(
    kind: Kind, rounds: int, clock: Callable[[], float] = time.process_time
) -> tuple[list[float], JsonObject]:
    expected = Expected(BOUND, reference_values=kind.values)
    times: list[float] = []
    claims: JsonObject = {}
    for _ in range(rounds + 1):
        begin = clock()
        authentic = await kind.verifier.authenticate(kind.evidence, expected)
        claims = await authentic.claims(None)
        times.append(clock() - begin)
    return times[1:], claims  # the first one loads modules


def _crypto_seconds(kind: Kind, rounds: int) -> list[float]:
    """Return the processor time of calls in cryptography, the rest being slower meanwhile."""
    counted = Crypto()
    threading.setprofile(counted)
    sys.setprofile(counted)
    try:
        times, _ = asyncio.run(_verify(kind, rounds, lambda: counted.seconds))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return times


def _appraise(kind: Kind, claims: JsonObject, rounds: int) -> Figures:
    policy = Policy(defaults.text(f"default_{kind.verifier.category}"))
    document = compose(kind.verifier.kind, claims, {}, None)
    base = BaseDocuments.of(kind.values, operator={})
    times = []
    for _ in range(rounds + 1):
        begin = time.process_time()
        appraise(*policy.evaluate(_RULES, document, base=base).values())
        times.append(time.process_time() - begin)
    return Figures.of(times[1:])


def evidence(*, quick: bool = False) -> JsonObject:
    """Measure each type, print and return the figures."""
    rounds = ROUNDS // 10 if quick else ROUNDS
    print(f"\nEvidence of processors in software, processor time of one call, {rounds} calls:")
    print(f"  {'':<16}{'verify p50':>12}{'p99':>8}{'crypto':>9}{'appraise p50':>15}{'p99':>8}  ms")
    found: JsonObject = {}
    for name, kind in kinds().items():
        times, claims = asyncio.run(_verify(kind, rounds))
        verified = Figures.of(times)
        share = statistics.median(_crypto_seconds(kind, rounds)) / statistics.median(times)
        judged = _appraise(kind, claims, rounds)
        print(
            f"  {name:<16}{verified.p50_ms:12.2f}{verified.p99_ms:8.2f}{share:9.0%}"
            f"{judged.p50_ms:15.2f}{judged.p99_ms:8.2f}"
        )
        found[name] = {
            "verification": {**asdict(verified), "crypto": share},
            "appraisal": asdict(judged),
        }
    return found
