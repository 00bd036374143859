# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from structlog.testing import capture_logs

from cocos import attesters
from cocos.attesters import ATTESTERS, InsecureSampleAttester
from cocos.attesters.sample_device import InsecureSampleDevice
from cocos.errors import UnsupportedError
from cocos.wire.kbs import protocol as kbs

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = kbs.EcKey(
    crv="P-256",
    alg="ECDH-ES+A256KW",
    x="ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
    y="44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
)


async def test_a_machine_without_tee_is_refused_and_told_the_flag() -> None:
    with pytest.raises(UnsupportedError) as caught:
        await attesters.detect(insecure_sample=False)
    assert "--insecure-sample" in (caught.value.hint or "")
    assert "COCOS_INSECURE_SAMPLE=1" in (caught.value.hint or "")


async def test_sample_is_used_only_when_allowed_and_warns() -> None:
    with capture_logs() as logs:
        attester = await attesters.detect(insecure_sample=True)
    assert await attester.tee() is kbs.Tee.SAMPLE
    assert attester.insecure
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "attester.insecure")
    ]


def test_insecure_attesters_come_last_and_say_so() -> None:
    order = [kind.insecure for kind in ATTESTERS]
    assert order == sorted(order)
    assert all(("Insecure" in kind.__name__) == kind.insecure for kind in ATTESTERS)
    assert len({kind.kind for kind in ATTESTERS}) == len(ATTESTERS)


async def test_sample_evidence_is_trustees() -> None:
    report_data = kbs.report_data(kbs.runtime_data(NONCE, KEY, ""))
    assert await InsecureSampleAttester().evidence(report_data) == {
        "svn": "1",
        "report_data": "cqptH/GXi/1gpcJ3JELcJcKzIsLCYgWrttP2x64mhGGuE1o6uCn1H+P581LHVl33",
    }


@pytest.mark.parametrize("size", [0, 64, 96, 100])
async def test_no_hardware_limits_what_a_sample_carries(size: int) -> None:
    """Peers ask for 96 and 100 bytes, and upstream's sample answers; a TPM's limit is a TPM's."""
    report_data = bytes(range(size))
    for evidence in (
        await InsecureSampleAttester().evidence(report_data),
        await InsecureSampleDevice().evidence(report_data),
    ):
        assert base64.b64decode(evidence["report_data"]) == report_data


async def test_sample_measures_nothing_and_says_so() -> None:
    attester = InsecureSampleAttester()
    with pytest.raises(UnsupportedError, match="register"):
        await attester.extend_register(14, bytes(32))
    with pytest.raises(UnsupportedError, match="register"):
        await attester.read_register(14)
    with pytest.raises(UnsupportedError, match="init data"):
        await attester.bind_init_data(bytes(32))


async def test_sample_has_no_devices() -> None:
    attester = InsecureSampleAttester()
    assert await attester.additional_tees() == ()
    assert not await attester.additional_evidence(bytes(48))


async def test_a_sample_device_is_added_by_its_name_only() -> None:
    plain = await attesters.detect(insecure_sample=True)
    assert await plain.additional_tees() == ()
    assert await plain.additional_evidence(b"abc") == ""
    with capture_logs() as logs:
        attester = await attesters.detect(insecure_sample=True, sample_device=True)
    assert [line["tee"] for line in logs] == ["sample", "sampledevice"]
    assert await attester.additional_tees() == (kbs.Tee.SAMPLE_DEVICE,)
    found = json.loads(await attester.additional_evidence(b"abc"))
    assert found == {"sampledevice": {"svn": "2", "report_data": "YWJj"}}
