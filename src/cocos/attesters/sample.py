# SPDX-License-Identifier: Apache-2.0
"""Sample evidence: the format of evidence without any proof. Insecure, for trials only."""

import base64
from typing import Any, ClassVar, Self

from cocos._types import JsonObject
from cocos.attesters._base import Attester, Devices
from cocos.wire.kbs.protocol import Tee


class InsecureSampleAttester(Attester):
    """Claims to be a TEE. Anybody can make this evidence, anywhere."""

    kind: ClassVar[Tee] = Tee.SAMPLE
    insecure: ClassVar[bool] = True

    @classmethod
    async def detect(cls, devices: Devices) -> Self:  # noqa: ARG003 - it needs none
        """Return an attester: every machine can say that it is a sample."""
        return cls()

    async def evidence(
        self,
        report_data: bytes,
        challenge: JsonObject | None = None,  # noqa: ARG002
        *,
        events: bytes = b"",  # noqa: ARG002
    ) -> Any:
        """Return ``svn`` and the report data, unsigned; what proves nothing has room for all."""
        return {"svn": "1", "report_data": base64.b64encode(report_data).decode("ascii")}
