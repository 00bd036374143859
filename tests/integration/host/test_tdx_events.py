# SPDX-License-Identifier: Apache-2.0
"""What the firmware adds to RTMR 1 by itself, against the log of a real TDX guest."""

import pytest
from _vectors import vector

from cocos.evidence import eventlog
from cocos.host.machines import efi_program
from cocos.image import measure
from cocos.wire.pe import Image

pytestmark = pytest.mark.integration

RTMR_1 = 2  # in a log, registers are counted from 1
TYPES = ("EV_EFI_ACTION", "EV_SEPARATOR")


def test_actions_and_separator_are_those_of_a_real_guest() -> None:
    log = eventlog.parse_log(vector("eventlog/ccel-aael.bin"))
    real = [
        event.digests["sha384"]
        for event in log
        if event.index == RTMR_1 and event.type_name in TYPES
    ]
    image = Image.parse(efi_program.build(b"\xc3", {".linux": efi_program.build(b"\xc3")}))
    predicted = [
        event.digest
        for event in measure.boot(image, "sha384")
        if event.pcr in measure.RTMR_PCRS[1] and event.event.startswith(TYPES)
    ]
    assert predicted == real
