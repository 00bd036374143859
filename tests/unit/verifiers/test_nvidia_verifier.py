# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA verifier: a real H100's report, and each step on GPUs in software."""

import base64
import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from _nvidia import DAY, FWID, NOW, ROOT, ROOT_KEY, Gpu, certificate, new_key, report
from _vectors import vector
from _verified import verified
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cocos._types import ReportData
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.nvidia import Report
from cocos.verifiers import Expected, NvidiaVerifier, verifier_table
from cocos.wire.kbs.protocol import Tee

BOUND = ReportData(hashlib.sha384(b"session").digest())
EXPECTED = Expected(BOUND)
VERIFIER = NvidiaVerifier(clock=lambda: NOW, insecure_root=ROOT)
NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")


def of(*devices: dict[str, str]) -> dict[str, Any]:
    return {"device_evidence_list": list(devices)}


def hopper(chain: str = "hopper-chain.pem", **changes: str) -> dict[str, Any]:
    text = vector("nvidia/hopper-report.hex").decode().strip()
    pem = base64.b64encode(vector(f"nvidia/{chain}")).decode()
    uuid = "1111-2222-33333-444444-555555"
    device = {"arch": "HOPPER", "uuid": uuid, "evidence": text, "certificate": pem}
    return of(device | changes)


async def checks(
    evidence: Any, verifier: NvidiaVerifier = VERIFIER, expected: Expected = EXPECTED
) -> dict[str, Finding]:
    with pytest.raises(EvidenceError) as caught:
        await verified(verifier, evidence, expected)
    return {finding.check: finding for finding in caught.value.findings}


# --- a real one ---------------------------------------------------------------------------

GENUINE = NvidiaVerifier(clock=lambda: NOW)
REAL = Expected(ReportData(NONCE))


async def test_a_real_gpu() -> None:
    claims = await verified(GENUINE, hopper(), REAL)
    wanted = json.loads(vector("nvidia/hopper-claims.txt"))
    assert {name: claims[name] for name in wanted} == wanted
    assert claims["report_data"] == NONCE.hex()
    assert claims["device_serial"] == "41431D480FE5E87274"
    text = vector("nvidia/hopper-report.hex").decode().strip()
    as_base64 = base64.b64encode(bytes.fromhex(text)).decode()
    assert await verified(GENUINE, hopper(evidence=as_base64), REAL) == claims


async def test_a_real_gpu_is_in_the_table() -> None:
    found = verifier_table(insecure_allow_sample=False, clock=lambda: NOW).find(Tee.NVIDIA)
    assert not found.insecure
    assert await verified(found, hopper(), REAL)


async def test_a_root_alone_is_no_chain() -> None:
    found = await checks(hopper("hopper-chain-root-only.pem"), GENUINE, REAL)
    assert set(found) == {"nvidia.0.certificate"}


async def test_bits_of_a_real_report_count() -> None:
    data = bytearray.fromhex(vector("nvidia/hopper-report.hex").decode())
    for bit in [*range(0, 8 * 46, 3), *range(8 * 46, 8 * len(data), 401)]:
        data[bit // 8] ^= 1 << bit % 8
        changed = hopper(evidence=base64.b64encode(data).decode())
        found = await checks(changed, GENUINE, REAL)
        assert found.keys() <= {"nvidia.evidence", "nvidia.0.signature", "nvidia.0.report_data"}
        data[bit // 8] ^= 1 << bit % 8


async def test_a_real_gpu_is_none_of_another_root() -> None:
    assert set(await checks(hopper(), VERIFIER, REAL)) == {"nvidia.0.certificate"}
    own = of(Gpu().evidence(NONCE))
    assert set(await checks(own, GENUINE, REAL)) == {"nvidia.0.certificate"}


async def test_a_real_chain_in_any_other_order() -> None:
    parts = vector("nvidia/hopper-chain.pem").decode().split("-----BEGIN ")[1:]
    pems = ["-----BEGIN " + each for each in parts]
    for order in ([1, 0, 2, 3, 4], [0, 2, 1, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 4], [0, 4], [4, 4]):
        chain = base64.b64encode("".join(pems[each] for each in order).encode()).decode()
        assert set(await checks(hopper(certificate=chain), GENUINE, REAL)) == {
            "nvidia.0.certificate"
        }, order


# --- step by step -------------------------------------------------------------------------


async def test_gpus_in_software() -> None:
    assert VERIFIER.insecure
    gpus = [Gpu(serial=str(number)) for number in range(8)]
    authentic = await VERIFIER.authenticate(of(*(g.evidence(BOUND) for g in gpus)), EXPECTED)
    parts = await authentic.parts(None, "gpu")
    assert [part.category for part in parts] == ["gpu"] * 8
    assert [part.claims["device_serial"] for part in parts] == list("01234567")
    assert parts[0].claims["measurements"]["2"] == "22" * 48


@pytest.mark.parametrize("nonce", [bytes(32), b"", BOUND[16:48], bytes(reversed(BOUND[:32]))])
async def test_another_nonce(nonce: bytes) -> None:
    gpu = Gpu()
    assert set(await checks(of(gpu.evidence(nonce.ljust(32, b"\0"))))) == {"nvidia.0.report_data"}
    # One that is fresh vouches for no other.
    two = of(gpu.evidence(BOUND), Gpu(serial="2").evidence(nonce.ljust(32, b"\0")))
    assert set(await checks(two)) == {"nvidia.1.report_data"}


async def test_signed_by_another_key() -> None:
    gpu, other = Gpu(), new_key()
    forged = base64.b64encode(report(other, BOUND)).decode()
    assert set(await checks(of(gpu.evidence(BOUND, evidence=forged)))) == {"nvidia.0.signature"}


async def test_keys_of_other_kinds() -> None:
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)):
        gpu = Gpu()
        gpu.chain[0] = gpu.leaf(key)
        assert set(await checks(of(gpu.evidence(BOUND)))) == {"nvidia.0.signature"}


@pytest.mark.parametrize(
    "changes",
    [
        {"begin": NOW + DAY, "end": NOW + 2 * DAY},
        {"begin": NOW - 2 * DAY, "end": NOW - DAY},
        {"ca": True},
    ],
    ids=["not yet valid", "expired", "a CA"],
)
async def test_certificates_that_do_not_count(changes: dict[str, Any]) -> None:
    gpu = Gpu()
    gpu.chain[0] = gpu.leaf(**changes)
    assert set(await checks(of(gpu.evidence(BOUND)))) == {"nvidia.0.certificate"}


@pytest.mark.parametrize(
    "changes", [{"ca": False}, {"sign": False}, {"path_length": 0}, {"end": NOW - dt.timedelta(1)}]
)
async def test_issuers_that_do_not_count(changes: dict[str, Any]) -> None:
    gpu = Gpu()
    values: dict[str, Any] = {"begin": NOW - 3 * DAY} | changes
    middle = new_key()
    gpu.chain[1:] = [
        certificate("brom", gpu.brom_key, "middle", middle, serial="1"),
        certificate("middle", middle, "root", ROOT_KEY, **values),
        ROOT,
    ]
    assert set(await checks(of(gpu.evidence(BOUND)))) == {"nvidia.0.certificate"}


async def test_a_device_certifies_no_other() -> None:
    """Whoever has a device's own key would make as many devices as he likes."""
    gpu, forged = Gpu(), Gpu()
    leaf = certificate(gpu.name, forged.key, gpu.name, gpu.key, ca=False, fwid=FWID)
    forged.chain = [leaf, *gpu.chain]
    assert set(await checks(of(forged.evidence(BOUND)))) == {"nvidia.0.certificate"}


async def test_chains_that_go_in_circles() -> None:
    gpu = Gpu()
    gpu.chain = [gpu.chain[0], ROOT, gpu.chain[1], ROOT]
    assert set(await checks(of(gpu.evidence(BOUND)))) == {"nvidia.0.certificate"}


@pytest.mark.parametrize("fwid", [None, b"", bytes(48), FWID[:47], FWID + b"\0"])
async def test_a_certificate_for_other_firmware(fwid: bytes | None) -> None:
    gpu = Gpu()
    gpu.chain[0] = gpu.leaf(fwid=fwid)
    assert set(await checks(of(gpu.evidence(BOUND)))) == {"nvidia.0.fwid"}


async def test_a_report_without_firmware_id() -> None:
    gpu = Gpu()
    said = base64.b64encode(report(gpu.key, BOUND, opaque={})).decode()
    assert set(await checks(of(gpu.evidence(BOUND, evidence=said)))) == {"nvidia.0.fwid"}


async def test_another_family_in_disguise() -> None:
    assert set(await checks(of(Gpu(name="GB100 A01 GSP FMC LF").evidence(BOUND)))) == {
        "nvidia.0.arch"
    }


@pytest.mark.parametrize("arch", ["BLACKWELL", "LS10", "Blackwell", "ADA", "", "x" * 9999])
async def test_what_only_nvidia_can_verify(arch: str) -> None:
    found = await checks(of(Gpu().evidence(BOUND), Gpu(serial="2").evidence(BOUND, arch=arch)))
    assert set(found) == {"nvidia.arch"}
    assert ("NRAS" in found["nvidia.arch"].problem) is (arch.upper() in {"BLACKWELL", "LS10"})


async def test_one_gpu_is_not_two() -> None:
    gpu = Gpu()
    assert set(await checks(of(*[gpu.evidence(BOUND)] * 2))) == {"nvidia.devices"}
    # Nor with another key, as after a reset.
    again = Gpu(serial=gpu.serial)
    assert set(await checks(of(gpu.evidence(BOUND), again.evidence(BOUND)))) == {"nvidia.devices"}


@pytest.mark.parametrize(
    "evidence",
    [
        None,
        {},
        [],
        of(),
        of(*[Gpu().evidence(BOUND)] * 17),
        of(Gpu().evidence(BOUND, evidence="")),
        of(Gpu().evidence(BOUND, evidence="!")),
        of(Gpu().evidence(BOUND, certificate="")),
        of(Gpu().evidence(BOUND, certificate="A" * 40_000)),
        of(Gpu().evidence(BOUND, certificate=base64.b64encode(b"-----BEGIN ").decode())),
    ],
    ids=range(10),
)
async def test_no_evidence(evidence: Any) -> None:
    assert set(await checks(evidence)) == {"nvidia.evidence"}


@pytest.mark.parametrize("cut", [0, 1, 36, 37, 45, 60, -97, -1])
def test_reports_cut_short(cut: int) -> None:
    whole = report(new_key(), BOUND)
    assert Report.parse(whole).nonce == BOUND[:32]
    with pytest.raises(FormatError):
        Report.parse(whole[:cut])
    with pytest.raises(FormatError):
        Report.parse(whole + b"\0")


def test_a_measurement_is_there_once() -> None:
    whole = bytearray(report(new_key(), BOUND))
    assert whole[45] == 1
    whole[45] = 2
    with pytest.raises(FormatError, match="twice"):
        Report.parse(bytes(whole))
