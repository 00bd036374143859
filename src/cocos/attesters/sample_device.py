# SPDX-License-Identifier: Apache-2.0
"""A device that does not exist, for trials of composite evidence. Insecure."""

import base64
from typing import Any, ClassVar

from cocos.attesters._base import DeviceAttester
from cocos.wire.kbs.protocol import Tee


class InsecureSampleDevice(DeviceAttester):
    """Claims to be a device beside the CPU. Anybody can make this evidence, anywhere."""

    kind: ClassVar[Tee] = Tee.SAMPLE_DEVICE

    async def evidence(self, report_data: bytes) -> Any:
        """Return ``svn`` and the report data, unsigned; what proves nothing has room for all."""
        return {"svn": "2", "report_data": base64.b64encode(report_data).decode("ascii")}
