# SPDX-License-Identifier: Apache-2.0
"""A TDX guest, from its device files to the key: and everything that must not get it."""

import base64
import functools
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import _processors
import pytest
from _intel import Intel, pem
from _kbs import InProcessKbs, kbs_in_process
from _processors import Guest, SoftwareTdx, computation
from _rcar import claims, denial

from cocos.attestation_agent.event import record, tagged_event
from cocos.cli.kbs.trust_roots import insecure_roots
from cocos.errors import ConfigError, IntegrityError
from cocos.kbs.config import Settings
from cocos.policy.appraisal import INSECURE
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = "default/key/algo"
SECRET = b"0123456789abcdef0123456789abcdef"
MAKER = Intel()
INIT_DATA = """version = "0.1.0"
algorithm = "sha384"
[data]
"aa.toml" = '''
[token_configs.kbs]
url = "http://10.0.2.2:8080"
'''
"""
CONFIG_ID = hashlib.sha384(INIT_DATA.encode()).digest()
RUN = computation("algorithm")

# As an operator writes it who tries a simulated processor on purpose.
TRIAL = """package policy
import rego.v1
default hardware := 97
hardware := 2 if {
	input.tdx.tcb_status == "UpToDate"
	input.tdx.quote.body.mr_td == "%s"
}
default configuration := 36
configuration := 2 if {
	input.tdx.td_attributes.debug == false
	is_object(input.init_data_claims)
}
default executables := 33
executables := 3 if hardware == 2
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
	ran := part["ear.veraison.annotated-evidence"].tdx.computations
	count(ran) == 1
	ran[0].algorithm_digest == "%s"
}
"""


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[InProcessKbs]:
    """A key broker whose operator believes the simulation's root, and judges for itself."""
    root = tmp_path / "root.pem"
    root.write_text(pem(MAKER.root))
    folder = tmp_path / "kbs"
    folder.mkdir()
    roots = {"intel": root}
    async with kbs_in_process(
        folder, allow_sample=False, collateral=MAKER.held(), insecure_trust_root=roots
    ) as found:
        async with found.admin() as admin:
            await admin.set_resource(ResourcePath.parse(KEY), SECRET)
            await admin.set_attestation_policy("default_cpu", TRIAL % ("33" * 48))
            await admin.set_resource_policy(OWNER % RUN.algorithm)
        yield found


@pytest.fixture
def processor() -> SoftwareTdx:
    return SoftwareTdx(MAKER, CONFIG_ID)


@pytest.fixture
async def guest(processor: SoftwareTdx, tmp_path: Path) -> Guest:
    return await processor.guest(tmp_path)


refused = functools.partial(_processors.refused, key=KEY, init_data=INIT_DATA)


async def test_from_the_device_to_the_key(kbs: InProcessKbs, guest: Guest) -> None:
    await guest.machine.bind_init_data(CONFIG_ID)
    await guest.measure(RUN)
    session = await guest.session(kbs, INIT_DATA)
    answer = await session.attest(await guest.evidence(session))
    assert answer.status_code == 200, answer.text
    assert await session.read(KEY) == SECRET
    part = claims(session.token)
    assert part[INSECURE] == ["tdx"]
    shown = part["ear.veraison.annotated-evidence"]
    assert shown["insecure"] == part[INSECURE]
    assert shown["tdx"]["computation"] == RUN.claims()
    assert shown["init_data"] == CONFIG_ID.hex()


async def test_the_default_policy_refuses_a_root_that_is_nobodys(
    kbs: InProcessKbs, guest: Guest
) -> None:
    """Whatever is registered: the very same evidence is as good as a stranger's."""
    async with kbs.admin() as admin:
        await admin.delete_attestation_policy("default_cpu")
        zero = "00" * 48
        values = {"mr_td": "33" * 48, "rtmr_1": zero, "rtmr_2": zero, "xfam": "e742060000000000"}
        for name, value in values.items():
            await admin.set_reference_value(name, [value])
    await guest.measure(RUN)
    session = await guest.session(kbs, INIT_DATA)
    answer = await session.attest(await guest.evidence(session))
    assert answer.status_code == 200
    part = claims(session.token)
    assert part["ear.status"] == "contraindicated"
    assert part["ear.trustworthiness-vector"]["hardware"] == 97
    assert "insecure" in {finding["check"] for finding in part["ear.cocos.findings"]}
    assert (await session.get(KEY)).status_code == 403


async def test_without_the_flag_the_root_counts_for_nothing(
    tmp_path: Path, processor: SoftwareTdx
) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    guest = await processor.guest(tmp_path)
    held = MAKER.held()
    async with kbs_in_process(folder, allow_sample=False, collateral=held) as strict:
        assert await refused(strict, guest) == {"tdx.root"}


async def test_a_processor_of_another_maker(kbs: InProcessKbs, tmp_path: Path) -> None:
    assert "tdx.root" in await refused(kbs, await SoftwareTdx(Intel()).guest(tmp_path))


async def test_evidence_of_another_session(kbs: InProcessKbs, guest: Guest) -> None:
    await guest.measure(RUN)
    stale = await guest.evidence(await guest.session(kbs, INIT_DATA))
    assert await refused(kbs, guest, stale) == {"tdx.report_data"}


async def test_another_computation_and_a_second_one(kbs: InProcessKbs, guest: Guest) -> None:
    await guest.measure(computation("another"))
    session = await guest.session(kbs, INIT_DATA)
    assert (await session.attest(await guest.evidence(session))).status_code == 200
    assert (await session.get(KEY)).status_code == 403
    await guest.measure(RUN)
    session = await guest.session(kbs, INIT_DATA)
    assert (await session.attest(await guest.evidence(session))).status_code == 200
    assert (await session.get(KEY)).status_code == 403, "two computations: not alone"


async def test_nothing_measured(kbs: InProcessKbs, guest: Guest) -> None:
    session = await guest.session(kbs, INIT_DATA)
    assert (await session.attest(await guest.evidence(session))).status_code == 200
    assert (await session.get(KEY)).status_code == 403


@pytest.mark.parametrize("attack", ["drop", "swap", "add", "empty"])
async def test_a_log_that_was_changed_on_the_way(
    kbs: InProcessKbs, guest: Guest, attack: str
) -> None:
    other = computation("another")
    await guest.measure(other)
    session = await guest.session(kbs, INIT_DATA)
    evidence = await guest.evidence(session)
    log = base64.b64decode(evidence["cc_eventlog"])
    event = tagged_event(*RUN.measured())
    mine = record(4, hashlib.sha384(event).digest(), event, algorithm="sha384")
    changed = {
        "drop": None,
        "swap": log[:69] + mine + log[-8:],
        "add": log[:-8] + mine + log[-8:],
        "empty": log[:69] + log[-8:],
    }[attack]
    text = None if changed is None else base64.b64encode(changed).decode()
    answer = await session.attest({**evidence, "cc_eventlog": text})
    if attack == "drop":  # nobody knows then what ran: no owner's policy holds
        assert answer.status_code == 200
        assert "computations" not in claims(session.token)["ear.veraison.annotated-evidence"]["tdx"]
    else:
        assert "tdx.rtmr_3" in await denial(kbs, answer)
    assert (await session.get(KEY)).status_code in {401, 403}


async def test_other_init_data_than_the_host_gave(kbs: InProcessKbs, tmp_path: Path) -> None:
    guest = await SoftwareTdx(MAKER, bytes(48)).guest(tmp_path)
    await guest.measure(RUN)
    with pytest.raises(IntegrityError, match="MRCONFIGID"):
        await guest.machine.bind_init_data(CONFIG_ID)
    assert await refused(kbs, guest) == {"tdx.init_data"}


async def test_a_domain_that_its_host_can_debug(kbs: InProcessKbs, tmp_path: Path) -> None:
    debugged = {"td_attributes": (1 | 1 << 28).to_bytes(8, "little")}
    guest = await SoftwareTdx(MAKER, CONFIG_ID, debugged).guest(tmp_path)
    await guest.measure(RUN)
    assert await refused(kbs, guest)


async def test_another_firmware(kbs: InProcessKbs, tmp_path: Path) -> None:
    guest = await SoftwareTdx(MAKER, CONFIG_ID, {"mr_td": b"\x44" * 48}).guest(tmp_path)
    await guest.measure(RUN)
    assert await refused(kbs, guest)


def test_the_flag_takes_makers_and_files_that_are_roots(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text(pem(MAKER.root))
    settings = Settings(insecure_http=True, insecure_trust_root=[f"intel={root}"])  # type: ignore[arg-type]
    assert settings.insecure_trust_root == {"intel": root}
    assert insecure_roots(settings.insecure_trust_root).intel == MAKER.root
    assert insecure_roots({}).intel is None
    for wrong in (["intel"], ["=x"], ["intel="], ["nobody=x"], ["intel=a", "intel=b"]):
        with pytest.raises(ConfigError, match=r"NAME=FILE|no maker|one root"):
            Settings(insecure_http=True, insecure_trust_root=wrong)  # type: ignore[arg-type]
    root.write_text("no certificate")
    with pytest.raises(ConfigError, match="does not parse"):
        insecure_roots({"intel": root})
