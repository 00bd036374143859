# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG005 - some attacks do not look at the log
"""An SNP guest, from its device files to the key: and everything that must not get it."""

import base64
import functools
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import _processors
import pytest
from _intel import pem
from _kbs import InProcessKbs, kbs_in_process
from _processors import Guest, SoftwareSnp, computation, table
from _rcar import claims, denial
from _snp import ASK, ASK_KEY, NOW, ROOT, TCB, YEAR, Chip
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cocos.attestation_agent.event import record, tagged_event
from cocos.errors import FormatError, IntegrityError
from cocos.evidence.snp import SigningKey, Tcb
from cocos.evidence.snp_binding import bind
from cocos.policy.appraisal import INSECURE
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = "default/key/algo"
SECRET = b"0123456789abcdef0123456789abcdef"
CHIP = Chip()
MEASUREMENT = b"\x55" * 48
INIT_DATA = """version = "0.1.0"
algorithm = "sha256"
[data]
"aa.toml" = '''
[token_configs.kbs]
url = "http://10.0.2.2:8080"
'''
"""
HOST_DATA = hashlib.sha256(INIT_DATA.encode()).digest()
RUN = computation("algorithm")

# As an operator writes it who tries a simulated processor on purpose.
TRIAL = """package policy
import rego.v1
default hardware := 97
hardware := 2 if input.snp.reported_tcb_snp >= 23
default configuration := 36
configuration := 2 if {
	input.snp.policy_debug_allowed == false
	is_object(input.init_data_claims)
}
default executables := 33
executables := 3 if input.snp.measurement == "%s"
trust_claims := {
	"hardware": hardware, "configuration": configuration, "executables": executables,
}
"""
OWNER = """package policy
import rego.v1
default allow := false
allow if {
	part := input.submods.cpu0
	part["ear.status"] == "affirming"
	ran := part["ear.veraison.annotated-evidence"].snp.computations
	count(ran) == 1
	ran[0].algorithm_digest == "%s"
}
"""


def processor(**changes: Any) -> SoftwareSnp:
    more: dict[str, Any] = {
        "chip": CHIP,
        "host_data": HOST_DATA,
        "report": {"measurement": MEASUREMENT},
    }
    return SoftwareSnp(**(more | changes))


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    """A key broker whose operator believes the simulation's root, and judges for itself."""
    root = tmp_path / "root.pem"
    root.write_text(pem(ROOT, ASK))
    folder = tmp_path / "kbs"
    folder.mkdir()
    roots = {"amd": root}
    async with kbs_in_process(folder, allow_sample=False, insecure_trust_root=roots) as found:
        async with found.admin() as admin:
            await admin.set_resource(ResourcePath.parse(KEY), SECRET)
            await admin.set_attestation_policy("default_cpu", TRIAL % MEASUREMENT.hex())
            await admin.set_resource_policy(OWNER % RUN.algorithm)
        yield found


@pytest.fixture
async def guest(tmp_path: Path) -> Guest:
    return await processor().guest(tmp_path)


refused = functools.partial(_processors.refused, key=KEY, init_data=INIT_DATA)


async def test_from_the_device_to_the_key(kbs: InProcessKbs, guest: Guest) -> None:
    await guest.machine.bind_init_data(HOST_DATA)
    await guest.measure(RUN)
    session = await guest.session(kbs, INIT_DATA)
    answer = await session.attest(await guest.evidence(session))
    assert answer.status_code == 200, answer.text
    assert await session.read(KEY) == SECRET
    part = claims(session.token)
    assert part[INSECURE] == ["snp"]
    shown = part["ear.veraison.annotated-evidence"]
    assert shown["insecure"] == part[INSECURE]
    assert shown["snp"]["authority_insecure"] is True
    assert shown["snp"]["computation"] == RUN.claims()
    assert shown["snp"]["computations_bound_by"] == "report_data"
    assert shown["init_data"] == HOST_DATA.hex()


async def test_the_default_policy_refuses_a_root_that_is_nobodys(
    kbs: InProcessKbs, guest: Guest
) -> None:
    """Whatever is registered: the very same evidence is as good as a stranger's."""
    values = {
        "snp_launch_measurement": MEASUREMENT.hex(),
        "snp_bootloader": TCB.bootloader,
        "snp_microcode": TCB.microcode,
        "snp_snp_svn": TCB.snp,
        "snp_tee_svn": TCB.tee,
    }
    async with kbs.admin() as admin:
        await admin.delete_attestation_policy("default_cpu")
        for name, value in values.items():
            await admin.set_reference_value(name, [value])
    await guest.measure(RUN)
    session = await guest.session(kbs, INIT_DATA)
    answer = await session.attest(await guest.evidence(session))
    assert answer.status_code == 200
    part = claims(session.token)
    assert part["ear.status"] == "contraindicated"
    assert part["ear.trustworthiness-vector"]["hardware"] == 97
    assert {"insecure", "snp.authority"} <= {each["check"] for each in part["ear.cocos.findings"]}
    assert (await session.get(KEY)).status_code == 403


async def test_without_the_flag_the_root_counts_for_nothing(tmp_path: Path, guest: Guest) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    async with kbs_in_process(folder, allow_sample=False) as strict:
        assert await refused(strict, guest) == {"snp.chain"}


OTHER_CA = rsa.generate_private_key(65537, 2048)
OTHER_CHIP = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("certificate", "check"),
    [
        ({"signer": OTHER_CA}, "snp.chain"),
        ({"key": OTHER_CHIP}, "snp.signature"),
        ({"end": NOW - YEAR / 2}, "snp.chain"),
        ({"begin": NOW + YEAR / 2}, "snp.chain"),
        ({"common": "SEV-VLEK"}, "snp.chain"),
        ({"signer": ASK_KEY, "more": Chip(tcb=Tcb(10, 0, 24, 200)).extensions()}, "snp.tcb"),
        ({"more": CHIP.extensions(chip=bytes(64))}, "snp.chip_id"),
    ],
)
async def test_certificates_that_are_not_this_processor_s(
    kbs: InProcessKbs, tmp_path: Path, certificate: dict[str, Any], check: str
) -> None:
    beside = table({"VCEK": CHIP.certificate(**certificate)})
    guest = await processor(beside=beside).guest(tmp_path)
    found = await refused(kbs, guest)
    assert any(each.startswith(check) for each in found), found


async def test_a_host_without_certificates_is_told_what_is_missing(
    kbs: InProcessKbs, tmp_path: Path
) -> None:
    guest = await processor(beside=b"").guest(tmp_path)
    (check,) = await refused(kbs, guest)
    assert check.startswith("collateral.amd/vcek/genoa/")


@pytest.mark.parametrize(
    "report",
    [
        {"vmpl": 1},
        {"version": 2},
        {"cpuid": (0x17, 1, 1)},
        {"key_info": SigningKey.NONE << 2},
        {"measurement": bytes(48)},
        {"policy": 0x30000 | 1 << 19},
        {"key": OTHER_CHIP},
    ],
)
async def test_reports_that_do_not_hold(
    kbs: InProcessKbs, tmp_path: Path, report: dict[str, Any]
) -> None:
    guest = await processor(report={"measurement": MEASUREMENT} | report).guest(tmp_path)
    await guest.measure(RUN)
    assert await refused(kbs, guest)


async def test_other_init_data_than_the_host_gave(kbs: InProcessKbs, tmp_path: Path) -> None:
    guest = await processor(host_data=bytes(32)).guest(tmp_path)
    await guest.measure(RUN)
    with pytest.raises(IntegrityError, match="HOST_DATA"):
        await guest.machine.bind_init_data(HOST_DATA)
    assert await refused(kbs, guest) == {"snp.host_data"}


@pytest.mark.parametrize("measured", [True, False])
async def test_evidence_of_another_session(
    kbs: InProcessKbs, guest: Guest, *, measured: bool
) -> None:
    if measured:
        await guest.measure(RUN)
    stale = await guest.evidence(await guest.session(kbs, INIT_DATA))
    assert await refused(kbs, guest, stale) == {"snp.report_data"}


async def test_another_computation_and_a_second_one(kbs: InProcessKbs, guest: Guest) -> None:
    for event in (computation("another"), RUN):
        await guest.measure(event)
        session = await guest.session(kbs, INIT_DATA)
        assert (await session.attest(await guest.evidence(session))).status_code == 200
        assert (await session.get(KEY)).status_code == 403


async def test_before_anything_runs_evidence_is_everybody_s_and_claims_no_computation(
    kbs: InProcessKbs, guest: Guest
) -> None:
    session = await guest.session(kbs, INIT_DATA)
    evidence = await guest.evidence(session)
    assert set(evidence) == {"attestation_report", "cert_chain"}
    assert (await session.attest(evidence)).status_code == 200
    assert "computations" not in claims(session.token)["ear.veraison.annotated-evidence"]["snp"]
    assert (await session.get(KEY)).status_code == 403


# --- ADR 0040: the log is bound through report data -----------------------------------------


def entry(event: Any = RUN, register: int = 14) -> bytes:
    tagged = tagged_event(*event.measured())
    return record(register, hashlib.sha384(tagged).digest(), tagged, algorithm="sha384")


ATTACKS: dict[str, Callable[[bytes], bytes | None]] = {
    "drop": lambda log: None,
    "empty": lambda log: b"",
    "swap": lambda log: entry(),
    "append": lambda log: log + entry(),
    "prepend": lambda log: entry() + log,
    "truncate": lambda log: log[: len(log) // 2],
    "twice": lambda log: log + log,
    "fill": lambda log: log + bytes(16),
    "bit": lambda log: log[:-1] + bytes([log[-1] ^ 1]),
    "register": lambda log: b"\x11" + log[1:],
    "type": lambda log: log[:4] + b"\x05" + log[5:],
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_log_that_was_changed_on_the_way(
    kbs: InProcessKbs, guest: Guest, attack: str
) -> None:
    """The host carries evidence: here of a computation that the owner does not want."""
    await guest.measure(computation("another"))
    session = await guest.session(kbs, INIT_DATA)
    evidence = await guest.evidence(session)
    changed = ATTACKS[attack](base64.b64decode(evidence["aael"]))
    text = None if changed is None else base64.b64encode(changed).decode()
    answer = await session.attest({**evidence, "aael": text})
    assert set(await denial(kbs, answer)) == {"snp.report_data"}
    assert (await session.get(KEY)).status_code == 401


async def test_a_log_that_is_added_to_evidence_without_one(kbs: InProcessKbs, guest: Guest) -> None:
    session = await guest.session(kbs, INIT_DATA)
    evidence = await guest.evidence(session)
    forged = base64.b64encode(entry()).decode()
    answer = await session.attest({**evidence, "aael": forged})
    assert set(await denial(kbs, answer)) == {"snp.report_data"}


async def test_who_may_ask_the_agent_for_evidence_cannot_claim_a_computation(
    kbs: InProcessKbs, guest: Guest
) -> None:
    """A program that reached the attestation agent would choose report data to its liking."""
    await guest.measure(computation("another"))
    session = await guest.session(kbs, INIT_DATA)
    wanted = bind(session.report_data, entry())
    with pytest.raises(FormatError):
        await guest.agent.evidence(wanted)
    for part in (wanted[:48], wanted[:63], wanted[:-1] + b"\0"):
        shown = await guest.machine.evidence(part)
        for log in (entry(), None):
            text = None if log is None else base64.b64encode(log).decode()
            session = await guest.session(kbs, INIT_DATA)
            answer = await session.attest({**shown, "aael": text})
            assert set(await denial(kbs, answer)) == {"snp.report_data"}
