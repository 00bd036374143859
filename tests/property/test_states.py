# SPDX-License-Identifier: Apache-2.0
"""The agent's state machine under any sequence of events."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cocos.agent.states import TRANSITIONS, Event, Machine, State
from cocos.errors import StateError

steps = st.lists(st.tuples(st.sampled_from(Event), st.booleans()), max_size=40)


@given(steps)
def test_only_the_table_moves_it_and_nothing_kills_it(events: list[tuple[Event, bool]]) -> None:
    machine = Machine()
    for event, datasets in events:
        before = machine.state
        if (before, event) in TRANSITIONS:
            after = machine.fire(event, datasets=datasets)
            skipped = TRANSITIONS[before, event] is State.RECEIVING_DATA and not datasets
            assert after is (State.RUNNING if skipped else TRANSITIONS[before, event])
        else:
            with pytest.raises(StateError, match=str(before)):
                machine.fire(event, datasets=datasets)
            assert machine.state is before
    machine.fire(Event.STOPPED)
    assert machine.fire(Event.START) is State.RECEIVING_MANIFEST


@given(steps)
def test_a_result_is_consumed_only_after_a_run(events: list[tuple[Event, bool]]) -> None:
    machine = Machine()
    seen: list[State] = []
    fired: list[Event] = []
    for event, datasets in events:
        try:
            seen.append(machine.fire(event, datasets=datasets))
        except StateError:
            continue
        fired.append(event)
        if event is Event.STOPPED:
            seen.clear()
            fired.clear()
        if machine.state is State.COMPLETE:
            assert State.RUNNING in seen or Event.RESULT_FOUND in fired


@pytest.mark.parametrize("datasets", [True, False])
def test_the_whole_way(datasets: bool) -> None:
    machine = Machine()
    way = [Event.START, Event.MANIFEST_RECEIVED, Event.ALGORITHM_RECEIVED]
    way += [Event.DATA_RECEIVED] if datasets else []
    way += [Event.RUN_COMPLETE, Event.RESULTS_CONSUMED]
    for event in way:
        machine.fire(event, datasets=datasets)
    assert machine.state is State.COMPLETE
