# SPDX-License-Identifier: Apache-2.0
"""One agent's stream, as the test CVMS handles it."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from cocos.cvms.service import CvmsService, Ending, Session, Verdict
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

START = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
COMPUTATION = Computation(
    "1", Algorithm(Source("oci-image", "docker://h:1/x")), description="x" * 4096
)


class Cvms:
    def __init__(self, folder: Path) -> None:
        self.shown: list[dict[str, Any]] = []
        self.endings: list[Ending] = []
        self.service = CvmsService(
            COMPUTATION, folder, self.shown.append, self.endings.append, clock=lambda: START
        )

    def session(self, *, log_only: bool = False) -> Session:
        """The stream of an agent that has accepted the manifest."""
        made = Session(self.service, "vm", log_only=log_only)
        send(made, run_res=pb.RunResponse(computation_id="1"))
        self.shown.clear()
        return made


@pytest.fixture
def cvms(tmp_path: Path) -> Cvms:
    return Cvms(tmp_path / "results")


def send(session: Session, **message: Any) -> list[pb.ServerStreamMessage]:
    return list(session.receive(pb.ClientStreamMessage(**message)))


def state(name: str) -> pb.AgentStateRes:
    return pb.AgentStateRes(id="1", state=name)


def chunk(data: bytes, *, last: bool = False, identity: str = "1") -> pb.ResultChunk:
    return pb.ResultChunk(computation_id=identity, data=data, is_last=last)


def event(kind: str, details: bytes = b"") -> pb.AgentEvent:
    return pb.AgentEvent(event_type=kind, status="x", computation_id="1", details=details)


def test_the_manifest_goes_to_an_agent_that_waits_for_one(
    cvms: Cvms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocos.cvms.service.CHUNK_BYTES", 1000)
    session = cvms.session()
    assert [each.WhichOneof("message") for each in session.begin()] == ["agentStateReq"]
    assert send(session, agentStateRes=state("Running")) == []
    chunks = [each.runReqChunks for each in send(session, agentStateRes=state("ReceivingManifest"))]
    assert Computation.from_proto(b"".join(each.data for each in chunks)) == COMPUTATION
    assert [each.is_last for each in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].data == b""
    assert len(chunks) > 4
    assert {each.id for each in chunks} == {"1"}


def test_a_log_stream_gets_nothing(cvms: Cvms) -> None:
    session = cvms.session(log_only=True)
    assert list(session.begin()) == []
    assert send(session, agentStateRes=state("ReceivingManifest")) == []


def test_result_and_completion(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"ab"))
    send(session, resultChunk=chunk(b"c", last=True))
    assert not cvms.service.result_path.exists()
    send(session, agent_event=event("Complete"))
    assert cvms.service.result_path.read_bytes() == b"abc"
    assert cvms.endings == [Ending(Verdict.COMPLETE)]


def test_complete_without_a_result_is_a_failure(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"half"))
    send(session, agent_event=event("Complete"))
    assert cvms.endings[0].verdict is Verdict.FAILED
    session.end()
    assert list(cvms.service.result_path.parent.iterdir()) == []


def test_a_result_that_begins_again_on_another_stream(cvms: Cvms) -> None:
    first, second = cvms.session(), cvms.session()
    send(first, resultChunk=chunk(b"half"))
    send(second, resultChunk=chunk(b"whole", last=True))
    send(second, agent_event=event("Complete"))
    first.end()
    assert cvms.service.result_path.read_bytes() == b"whole"
    assert len(list(cvms.service.result_path.parent.iterdir())) == 1


def test_an_earlier_computation_of_the_same_id_is_not_taken_for_ours(cvms: Cvms) -> None:
    """An agent repeats what it did last to whoever answers at the CVMS's address."""
    session = cvms.session()
    send(session, resultChunk=chunk(b"old", last=True))
    send(session, agent_event=event("Complete", b'{"manifest": "another"}'))
    send(session, agent_event=event("Failed", b'{"manifest": "another"}'))
    assert cvms.endings == []
    assert list(cvms.service.result_path.parent.iterdir()) == []
    assert cvms.shown[-1]["other"] is True


@pytest.mark.parametrize(("seconds", "ours"), [(-1, False), (0, True)])
def test_an_agent_that_never_got_it_from_us_tells_of_the_past(
    cvms: Cvms, seconds: int, ours: bool
) -> None:
    session = Session(cvms.service, "another vm")
    late = event("Complete")
    late.timestamp.FromDatetime(START + dt.timedelta(seconds=seconds))
    send(session, resultChunk=chunk(b"x", last=True))
    send(session, agent_event=late)
    assert cvms.service.result_path.exists() is ours
    assert cvms.endings == ([Ending(Verdict.COMPLETE)] if ours else [])


def test_repeated_events_are_shown_once(cvms: Cvms) -> None:
    for session in (cvms.session(), cvms.session()):
        send(session, agent_event=event("Running", b"{}"))
    assert len(cvms.shown) == 1


def test_a_foreign_id_writes_nowhere(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"x", last=True, identity="../../evil"))
    send(session, agent_event=pb.AgentEvent(event_type="Complete", computation_id="2"))
    assert list(cvms.service.result_path.parent.iterdir()) == []
    assert cvms.endings == []


def test_why_it_failed(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, agent_event=event("Failed", b'{"reason": "no key"}'))
    send(session, agent_event=event("Failed", b"\xff"))
    send(session, run_res=pb.RunResponse(computation_id="1", error="no"))
    assert [each.reason for each in cvms.endings] == ["no key", "the agent names no reason", "no"]
    assert cvms.endings[2].verdict is Verdict.REFUSED


@pytest.mark.parametrize("details", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_details_that_are_none(cvms: Cvms, details: bytes) -> None:
    send(cvms.session(), agent_event=event("Running", details))
    assert "details" not in cvms.shown[-1]
