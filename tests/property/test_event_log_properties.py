# SPDX-License-Identifier: Apache-2.0
"""Whatever fails and whenever we are killed: the log explains the register."""

import asyncio
import tempfile
from pathlib import Path

from _registers import RegisterAttester
from hypothesis import given, settings
from hypothesis import strategies as st

from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.event_log import EventLog
from cocos.errors import UnreachableError
from cocos.evidence.eventlog import parse_records, replay

STEP = st.tuples(
    st.sampled_from(["works", "fails", "seems to fail", "dies before", "dies after"]),
    st.booleans(),
)


async def _run(folder: Path, steps: list[tuple[str, bool]]) -> None:
    attester = RegisterAttester()
    log = EventLog(folder / "eventlog", attester, 14)
    await log.open()
    told = []
    for number, (outcome, restart) in enumerate(steps):
        event = tagged_event("d", "o", f"{number}")
        attester.before = outcome in {"fails", "dies before"}
        attester.after = outcome in {"seems to fail", "dies after"}
        attester.dies = outcome.startswith("dies")
        try:
            await log.append(event)
            told.append(event)
        except UnreachableError:
            pass
        attester.reachable = True
        if restart:
            log = EventLog(folder / "eventlog", attester, 14)
            await log.open()
        found = parse_records(await log.read())
        assert replay(found, 14) == attester.registers.get(14, bytes(32))
        logged = [entry.data for entry in found]
        assert [each for each in logged if each in told] == told, "in order, none lost"
        assert len(set(logged)) == len(logged), "none twice"


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=8))
def test_the_log_always_explains_the_register(steps: list[tuple[str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(Path(folder), steps))
