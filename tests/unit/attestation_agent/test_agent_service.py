# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
from typing import Any, ClassVar, Self

import pytest

from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.service import AttestationAgent, Measured
from cocos.attesters import Attester, InsecureSampleAttester
from cocos.errors import CallerError, FormatError, IntegrityError, StateError, UnsupportedError
from cocos.wire.kbs import Tee


class RegisterAttester(Attester):
    """Registers as a TPM has them: extended by hashing, never written."""

    kind: ClassVar[Tee] = Tee.TPM

    def __init__(self) -> None:
        self.registers: dict[int, bytes] = {}
        self.host_data = hashlib.sha256(b"init data").digest()

    @classmethod
    async def detect(cls) -> Self:
        return cls()

    async def evidence(self, report_data: bytes) -> Any:
        return {"quote": report_data.hex()}

    async def additional_tees(self) -> tuple[Tee, ...]:
        return (Tee.SAMPLE_DEVICE,)

    async def additional_evidence(self, report_data: bytes) -> str:
        return json.dumps({Tee.SAMPLE_DEVICE: report_data.hex()})

    async def extend_register(self, index: int, event: bytes) -> None:
        old = self.registers.get(index, bytes(32))
        self.registers[index] = hashlib.sha256(old + hashlib.sha256(event).digest()).digest()

    async def bind_init_data(self, digest: bytes) -> None:
        if digest != self.host_data:
            raise IntegrityError("the machine was started with other init data")


def agent(attester: Attester, *, measure: bool = False) -> AttestationAgent:
    return AttestationAgent(attester, kbs=None, measure=measure, register=17)


async def test_evidence_is_compact_json() -> None:
    assert await agent(InsecureSampleAttester()).evidence(b"abc") == (
        b'{"svn":"1","report_data":"YWJj"}'
    )


async def test_devices_are_passed_on() -> None:
    own = agent(RegisterAttester())
    assert await own.additional_tees() == (Tee.SAMPLE_DEVICE,)
    assert json.loads(await own.additional_evidence(b"\x01")) == {"sampledevice": "01"}
    assert await agent(InsecureSampleAttester()).additional_evidence(b"\x01") == b""


@pytest.mark.parametrize(("asked", "register"), [(None, 17), (14, 14), (0, 0)])
async def test_a_measurement_extends_the_register_that_was_asked_for(
    asked: int | None, register: int
) -> None:
    attester = RegisterAttester()
    own = agent(attester, measure=True)
    assert await own.extend_runtime_measurement("d", "o", "c", asked) is Measured.DONE
    event = hashlib.sha256(tagged_event("d", "o", "c")).digest()
    assert attester.registers == {register: hashlib.sha256(bytes(32) + event).digest()}


async def test_measurements_are_off_unless_the_operator_switched_them_on() -> None:
    attester = RegisterAttester()
    result = await agent(attester).extend_runtime_measurement("d", "o", "c", None)
    assert result is Measured.NOT_ENABLED
    assert not attester.registers


async def test_sample_cannot_measure() -> None:
    own = agent(InsecureSampleAttester(), measure=True)
    result = await own.extend_runtime_measurement("d", "o", "c", None)
    assert result is Measured.NOT_SUPPORTED


@pytest.mark.parametrize("measure", [False, True])
async def test_a_malformed_event_is_the_callers_fault_whatever_the_settings(
    *, measure: bool
) -> None:
    attester = RegisterAttester()
    with pytest.raises(FormatError):
        await agent(attester, measure=measure).extend_runtime_measurement("d", "o", "c\nx", None)
    assert not attester.registers


async def test_init_data_is_compared() -> None:
    own = agent(RegisterAttester())
    await own.bind_init_data(hashlib.sha256(b"init data").digest())
    with pytest.raises(IntegrityError):
        await own.bind_init_data(hashlib.sha256(b"other init data").digest())


async def test_a_caller_is_told_that_init_data_is_not_bound() -> None:
    with pytest.raises(UnsupportedError):
        await agent(InsecureSampleAttester()).bind_init_data(bytes(32))


@pytest.mark.parametrize("size", [0, 1, 31, 33, 65])
async def test_init_data_needs_a_digest(size: int) -> None:
    with pytest.raises(FormatError, match=f"not {size}"):
        await agent(RegisterAttester()).bind_init_data(bytes(size))


@pytest.mark.parametrize("token_type", ["", "KBS", "coco_as", "kbs "])
async def test_only_tokens_with_nonce_and_key_are_made(token_type: str) -> None:
    with pytest.raises(CallerError) as caught:
        await agent(InsecureSampleAttester()).token(token_type)
    assert caught.value.grpc_status == "INVALID_ARGUMENT"


async def test_a_token_needs_a_configured_kbs() -> None:
    with pytest.raises(StateError) as caught:
        await agent(InsecureSampleAttester()).token("kbs")
    assert "AA_KBC_PARAMS" in (caught.value.hint or "")
