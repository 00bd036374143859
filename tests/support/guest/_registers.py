# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG003 - a register does not need all that attesters get
"""A machine with registers in memory: extended by hashing, never written; it can fail."""

import hashlib
from typing import Any, ClassVar, Self

from cocos._types import JsonObject
from cocos.attesters import Attester, Devices
from cocos.errors import IntegrityError, UnreachableError
from cocos.wire.kbs.protocol import Tee

GONE = UnreachableError("the registers do not answer")


class RegisterAttester(Attester):
    """Registers as a TPM has them.

    Attributes:
        before: Fail the next extension before it is done.
        after: Fail the next extension after it was done.
        dies: Whether a failed extension is the last thing that works.
        reachable: Whether reading works.
    """

    kind: ClassVar[Tee] = Tee.TPM
    register_hash: str | None = "sha256"
    default_register: ClassVar[int] = 14

    def __init__(self) -> None:
        self.registers: dict[int, bytes] = {}
        self.host_data = hashlib.sha256(b"init data").digest()
        self.before = self.after = self.dies = False
        self.reachable = True

    @classmethod
    async def detect(cls, devices: Devices) -> Self:
        return cls()

    async def auth_params(self) -> JsonObject:
        return {"registers": "present"}

    async def evidence(
        self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
    ) -> Any:
        answer = None if challenge is None else challenge.get("registers")
        return {"quote": report_data.hex(), "events": events.hex(), "answer": answer}

    async def additional_tees(self) -> tuple[Tee, ...]:
        return (Tee.SAMPLE_DEVICE,)

    async def additional_evidence(self, report_data: bytes) -> str:
        return f'{{"sampledevice":"{report_data.hex()}"}}'

    async def read_register(self, index: int) -> bytes:
        if not self.reachable:
            raise GONE
        return self.registers.get(index, bytes(32))

    async def extend_register(self, index: int, digest: bytes) -> None:
        failing, self.before = self.before, False
        if failing:
            self.reachable = not self.dies
            raise GONE
        old = self.registers.get(index, bytes(32))
        self.registers[index] = hashlib.sha256(old + digest).digest()
        failing, self.after = self.after, False
        if failing:
            self.reachable = not self.dies
            raise GONE

    async def bind_init_data(self, digest: bytes) -> None:
        if digest != self.host_data:
            raise IntegrityError("the machine was started with other init data")
