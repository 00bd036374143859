# SPDX-License-Identifier: Apache-2.0
"""Collateral in memory: given out until its time, then named with the command that gets it."""

import datetime as dt

import pytest

from cocos.errors import EvidenceError
from cocos.verifiers.collateral import NAME, Held, Item

NOW = dt.datetime(2026, 8, 1, tzinfo=dt.UTC)
ITEM = Item(b"crl", NOW - dt.timedelta(days=1), NOW + dt.timedelta(seconds=1))


def test_it_is_given_out_until_its_time_and_never_after() -> None:
    held = Held({"amd/crl/milan": ITEM})
    assert held.get("amd/crl/milan", NOW) == b"crl"
    with pytest.raises(EvidenceError, match="amd/crl/milan") as late:
        held.get("amd/crl/milan", ITEM.not_after)
    assert late.value.findings[0].problem == "what is stored of this is past its time"


def test_what_is_missing_is_named_with_the_command_that_gets_it() -> None:
    with pytest.raises(EvidenceError) as lacking:
        Held().get("intel/tcb/tdx/50806f000000", NOW)
    assert lacking.value.hint == "cocos-cli collateral fetch intel/tcb/tdx/50806f000000"
    assert lacking.value.findings[0].check == "collateral.intel/tcb/tdx/50806f000000"


@pytest.mark.parametrize(
    "name", ["", "amd", "/etc/passwd", "amd/../x", "amd//x", "Amd/x", "amd/x\n"]
)
def test_names_lead_nowhere_else(name: str) -> None:
    assert not NAME.fullmatch(name)
