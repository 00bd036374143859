# SPDX-License-Identifier: Apache-2.0
import datetime as dt

import pytest

from cocos.errors import FormatError, StateError
from cocos.manager.records import VmRecord, VmState

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
RECORD = VmRecord("id", "local", VmState.STARTING, NOW, "h:7001")


def test_the_disk_gives_back_what_it_got() -> None:
    record = RECORD.to(VmState.RUNNING).to(VmState.FAILED, "why")
    assert VmRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("end", [state for state in VmState if not state.live])
def test_an_end_is_final(end: VmState) -> None:
    record = RECORD.to(end)
    for state in VmState:
        with pytest.raises(StateError, match="cannot become"):
            record.to(state)


def test_no_way_back() -> None:
    for state in (VmState.STARTING, VmState.RUNNING):
        with pytest.raises(StateError):
            RECORD.to(VmState.STOPPING).to(state)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", RECORD.to_json()[:-2], RECORD.to_json().replace(b"Z", b""),
     RECORD.to_json().replace(b"starting", b"odd"), RECORD.to_json().replace(b'"id"', b'"x"', 1)],
)  # fmt: skip
def test_broken_records_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        VmRecord.from_json(data)
