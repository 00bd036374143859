# SPDX-License-Identifier: Apache-2.0
"""One agent's stream, as the test CVMS handles it."""

import errno
import hashlib
import json
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cocos.cvms.record import MAX_GIVEN, Verdict
from cocos.cvms.service import CvmsService, Ending, Session
from cocos.errors import StorageError
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire.manifest.computation import Computation
from cocos.wire.manifest.parts import Algorithm, Source

COMPUTATION = Computation(
    "1", Algorithm(Source("oci-image", "docker://h:1/x")), description="x" * 4096
)


MANIFEST = COMPUTATION.digest()


class Cvms:
    """A CVMS; ``again`` is it after a kill, started with the same command."""

    def __init__(self, folder: Path, computation: Computation = COMPUTATION) -> None:
        self.folder = folder
        self.shown: list[dict[str, Any]] = []
        self.endings: list[Ending] = []
        self.service = CvmsService(computation, folder, self.shown.append, self.endings.append)
        self.service.resume()

    def again(self, computation: Computation = COMPUTATION) -> "Cvms":
        return Cvms(self.folder, computation)

    def session(self, job: str = "vm", *, log_only: bool = False) -> Session:
        """The stream of an agent that has accepted the manifest."""
        made = Session(self.service, job, log_only=log_only)
        if not log_only:
            send(made, agentStateRes=state("ReceivingManifest"))
        send(made, run_res=pb.RunResponse(computation_id="1"))
        self.shown.clear()
        return made

    def files(self) -> list[str]:
        """What it stores, but its record."""
        names = (path.name for path in self.folder.iterdir())
        return sorted(name for name in names if name != ".1.cvms-test.json")


@pytest.fixture
def cvms(tmp_path: Path) -> Cvms:
    return Cvms(tmp_path / "results")


def send(session: Session, **message: Any) -> list[pb.ServerStreamMessage]:
    return list(session.receive(pb.ClientStreamMessage(**message)))


def state(name: str, manifest: bytes = b"", computation: str = "") -> pb.AgentStateRes:
    identity = computation or ("1" if manifest else "")
    return pb.AgentStateRes(id="1", state=name, computation_id=identity, manifest=manifest)


def chunk(
    data: bytes, *, last: bool = False, identity: str = "1", manifest: bytes = MANIFEST
) -> pb.ResultChunk:
    return pb.ResultChunk(computation_id=identity, data=data, is_last=last, manifest=manifest)


def event(kind: str, manifest: bytes | None = MANIFEST, **details: str) -> pb.AgentEvent:
    if manifest is not None:
        details["manifest"] = manifest.hex()
    text = json.dumps(details).encode()
    return pb.AgentEvent(event_type=kind, status="x", computation_id="1", details=text)


def receipt(result: bytes | None = None) -> list[pb.ServerStreamMessage]:
    digest = b"" if result is None else hashlib.sha256(result).digest()
    told = pb.Stored(computation_id="1", manifest=MANIFEST, result=digest)
    return [pb.ServerStreamMessage(stored=told)]


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
    assert send(session, resultChunk=chunk(b"ab")) == []
    assert cvms.endings == []
    assert send(session, resultChunk=chunk(b"c", last=True)) == receipt(b"abc")
    assert cvms.service.result_path.read_bytes() == b"abc"
    assert cvms.endings == []
    assert send(session, agent_event=event("Complete")) == receipt()
    assert cvms.endings == [Ending(Verdict.COMPLETE)]
    assert cvms.files() == ["1.zip.jwe"]


def test_complete_without_a_result_is_a_failure(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"half"))
    assert send(session, agent_event=event("Complete")) == []
    assert cvms.endings[0].verdict is Verdict.FAILED
    session.end()
    assert cvms.files() == []


def test_a_result_that_begins_again_on_another_stream(cvms: Cvms) -> None:
    first, second = cvms.session(), cvms.session()
    send(first, resultChunk=chunk(b"half"))
    send(second, resultChunk=chunk(b"whole", last=True))
    send(second, agent_event=event("Complete"))
    first.end()
    assert cvms.service.result_path.read_bytes() == b"whole"
    assert cvms.files() == ["1.zip.jwe"]


# --- killed, and started again with the same command --------------------------------------


def test_killed_before_the_result_came(cvms: Cvms) -> None:
    send(cvms.session(), resultChunk=chunk(b"half"))
    again = cvms.again()
    assert again.endings == []
    session = Session(again.service, "vm")
    send(session, resultChunk=chunk(b"whole", last=True))
    send(session, agent_event=event("Complete"))
    assert again.endings == [Ending(Verdict.COMPLETE)]
    assert again.service.result_path.read_bytes() == b"whole"


def test_killed_once_the_result_is_stored(cvms: Cvms) -> None:
    """Whoever has it needs no agent any more, which may have gone."""
    send(cvms.session(), resultChunk=chunk(b"r", last=True))
    again = cvms.again()
    assert again.endings == [Ending(Verdict.COMPLETE)]
    assert again.shown == [{"result": str(again.service.result_path)}]


def test_killed_before_the_agent_heard_of_its_result(cvms: Cvms) -> None:
    """Only the end's receipt lets an agent go, and only once it has left us."""
    send(cvms.session(), resultChunk=chunk(b"r", last=True))
    again = cvms.again()
    again.service.is_over = True
    session = Session(again.service, "vm")
    send(session, resultChunk=chunk(b"r", last=True))
    assert not again.service.heard.is_set()
    answers = session.receive(pb.ClientStreamMessage(agent_event=event("Complete")))
    assert [next(answers)] == receipt()
    assert not again.service.heard.is_set()
    assert list(answers) == []
    assert again.service.heard.is_set()


@pytest.mark.parametrize(("of", "heard"), [(MANIFEST, True), (b"\0" * 32, False)])
def test_killed_when_the_agent_had_heard(cvms: Cvms, of: bytes, *, heard: bool) -> None:
    send(cvms.session(), agent_event=event("Failed", reason="because"))
    again = cvms.again()
    send(Session(again.service, "vm"), agentStateRes=state("Failed", of))
    assert again.service.heard.is_set() is heard


@pytest.mark.parametrize(("job", "heard"), [("vm", True), ("another", False)])
def test_killed_with_the_result_and_the_agent_lost_everything(
    cvms: Cvms, job: str, *, heard: bool
) -> None:
    """Nobody computes again what has its result."""
    send(cvms.session(), resultChunk=chunk(b"r", last=True))
    again = cvms.again()
    again.service.is_over = True
    session = Session(again.service, job)
    assert send(session, agentStateRes=state("ReceivingManifest")) == []
    assert again.service.heard.is_set() is heard


def test_killed_between_the_result_and_the_record_of_it(
    cvms: Cvms, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = cvms.session()
    monkeypatch.setattr(cvms.service.ledger, "stored", _killed)
    with pytest.raises(KeyboardInterrupt):
        send(session, resultChunk=chunk(b"r", last=True))
    again = cvms.again()
    assert again.endings == []
    assert send(Session(again.service, "vm"), resultChunk=chunk(b"r", last=True)) == receipt(b"r")
    assert again.files() == ["1.zip.jwe"]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("told", [False, True])
def test_killed_around_a_failure(cvms: Cvms, *, told: bool) -> None:
    failed = event("Failed", reason="no key")
    if told:
        assert send(cvms.session(), agent_event=failed) == receipt()
    again = cvms.again()
    if not told:
        assert send(Session(again.service, "vm"), agent_event=failed) == receipt()
    assert again.endings == [Ending(Verdict.FAILED, "no key")]


def test_an_agent_that_goes_with_its_result_stored_has_done_its_work(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"r", last=True))
    session.end()
    assert cvms.endings == [Ending(Verdict.COMPLETE)]


def test_what_has_been_told_is_not_the_end_of_the_next_run(cvms: Cvms) -> None:
    failed = event("Failed", reason="no key")
    send(cvms.session(), agent_event=failed)
    cvms.service.close()
    again = cvms.again()
    session = Session(again.service, "vm")
    assert send(session, agent_event=failed) == receipt()
    assert again.endings == []
    send(session, agentStateRes=state("Failed", MANIFEST))
    assert again.endings[0].verdict is Verdict.REFUSED
    fresh = again.session("another vm")
    send(fresh, resultChunk=chunk(b"r", last=True))
    send(fresh, agent_event=event("Complete"))
    assert again.endings[1] == Ending(Verdict.COMPLETE)


def test_a_result_of_an_earlier_run_is_received_but_not_taken_for_the_new_one(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"r", last=True))
    send(session, agent_event=event("Complete"))
    cvms.service.close()
    again = cvms.again()
    session = Session(again.service, "vm")
    assert send(session, resultChunk=chunk(b"r", last=True)) == receipt(b"r")
    assert send(session, agent_event=event("Complete", at="later")) == receipt()
    assert again.endings == []
    send(session, agentStateRes=state("Complete", MANIFEST))
    assert again.endings[0].verdict is Verdict.REFUSED


def test_a_result_that_was_taken_away_is_not_there(cvms: Cvms) -> None:
    send(cvms.session(), resultChunk=chunk(b"r", last=True))
    cvms.service.result_path.unlink()
    assert cvms.again().endings == []


def test_parts_of_a_killed_cvms_are_removed(cvms: Cvms) -> None:
    (cvms.folder / ".1.zip.jwe.4194305-7f").write_bytes(b"half")  # no process has such an id
    (cvms.folder / f".1.zip.jwe.{os.getppid()}-7f").write_bytes(b"half")
    assert cvms.again().files() == [f".1.zip.jwe.{os.getppid()}-7f"]


def test_a_record_that_is_none(cvms: Cvms) -> None:
    (cvms.folder / ".1.cvms-test.json").write_bytes(b'{"id": "1"')
    assert cvms.again().endings == []


# --- whose it is --------------------------------------------------------------------------


def test_another_computation_of_the_same_id_is_not_taken_for_ours(cvms: Cvms) -> None:
    """An agent repeats what it did last to whoever answers at the CVMS's address."""
    session = cvms.session()
    other = bytes(32)
    assert send(session, resultChunk=chunk(b"old", last=True, manifest=other)) == []
    assert send(session, agent_event=event("Running", other)) == []
    assert send(session, agent_event=event("Complete", other)) == []
    assert send(session, agent_event=event("Failed", other)) == []
    assert cvms.endings == []
    assert cvms.files() == []
    assert [each["event"] for each in cvms.shown] == ["Running"], "said once, no flood"
    assert cvms.shown[0]["other"] is True


def test_a_record_of_another_manifest_is_not_ours(cvms: Cvms) -> None:
    send(cvms.session(), resultChunk=chunk(b"r", last=True))
    changed = replace(COMPUTATION, description="y")
    again = cvms.again(changed)
    assert again.endings == []
    other = changed.digest()
    send(Session(again.service, "vm"), resultChunk=chunk(b"new", last=True, manifest=other))
    assert again.shown[-1]["earlier"] == str(cvms.folder / "1.1.zip.jwe")
    assert (cvms.folder / "1.1.zip.jwe").read_bytes() == b"r"
    assert again.service.result_path.read_bytes() == b"new"


@pytest.mark.parametrize("manifest", ["", 1, None, [], "?"])
def test_an_event_that_names_no_manifest_is_of_who_has_accepted_ours(
    cvms: Cvms, manifest: object
) -> None:
    """Agents of the original name none, and their events come over a stream of their own."""
    details = json.dumps({} if manifest == "" else {"manifest": manifest}).encode()
    failed = pb.AgentEvent(event_type="Failed", computation_id="1", details=details)
    assert send(Session(cvms.service, "stranger"), agent_event=failed) == []
    assert cvms.endings == []
    cvms.session("vm")
    assert send(Session(cvms.again().service, "vm", log_only=True), agent_event=failed) == []
    send(Session(cvms.service, "vm", log_only=True), agent_event=failed)
    assert bool(cvms.endings) is (manifest == "")


def test_nobody_accepts_what_was_not_given_to_him(cvms: Cvms) -> None:
    session = Session(cvms.service, "stranger")
    for error in ("", "no"):
        send(session, run_res=pb.RunResponse(computation_id="1", error=error))
    assert cvms.service.ledger.record.given == ()
    assert cvms.endings == []


def test_results_of_two_agents_are_both_there(cvms: Cvms) -> None:
    for data in (b"one", b"two", b"six", b"six"):
        session = cvms.session(data.decode())
        assert send(session, resultChunk=chunk(data, last=True)) == receipt(data)
    assert cvms.files() == ["1.1.zip.jwe", "1.2.zip.jwe", "1.zip.jwe"]
    assert cvms.service.result_path.read_bytes() == b"six"


@pytest.mark.parametrize("name", ["Complete", "Failed"])
def test_a_vm_that_is_done_takes_no_other_computation(cvms: Cvms, name: str) -> None:
    session = Session(cvms.service, "vm")
    assert send(session, agentStateRes=state(name, bytes(32), "c-0")) == []
    (ending,) = cvms.endings
    assert ending.verdict is Verdict.REFUSED
    assert ending.reason == (
        "this VM has done its computation (c-0); start another one (cocos-cli agent create)"
    )


@pytest.mark.parametrize("name", ["Running", "ConsumingResults", "Idle"])
def test_a_vm_that_is_busy_is_not_done(cvms: Cvms, name: str) -> None:
    session = Session(cvms.service, "vm")
    assert send(session, agentStateRes=state(name, bytes(32), "c-0")) == []
    assert cvms.endings == []
    assert cvms.shown[-1] == {"state": name, "computation": "c-0"}


def test_a_vm_that_is_done_ends_nothing_while_another_one_works(cvms: Cvms) -> None:
    cvms.session("at work")
    again = cvms.again()
    send(Session(again.service, "done"), agentStateRes=state("Complete", bytes(32), "c-0"))
    assert again.endings == []
    assert "has done its computation" in again.shown[-1]["error"]


def test_an_agent_at_work_on_ours_is_known_although_its_answer_was_lost(cvms: Cvms) -> None:
    send(Session(cvms.service, "vm"), agentStateRes=state("Running", MANIFEST))
    assert cvms.again().service.ledger.record.given == ("vm",)


# --- a disk that cannot ------------------------------------------------------------------


def test_a_full_disk_is_told_and_leaves_nothing(
    cvms: Cvms, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"half"))
    monkeypatch.setattr("cocos.cvms.result_file.os.fsync", _full)
    with pytest.raises(StorageError, match="No space left on device"):
        send(session, resultChunk=chunk(b"whole", last=True))
    assert isinstance(cvms.endings[0].error, StorageError)
    assert cvms.files() == []
    monkeypatch.undo()
    assert send(session, resultChunk=chunk(b"whole", last=True)) == receipt(b"whole")
    assert cvms.service.result_path.read_bytes() == b"whole"


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failure_that_cannot_be_written_down_is_no_receipt(
    cvms: Cvms, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = cvms.session()
    monkeypatch.setattr("cocos.host.files.os.fsync", _full)
    with pytest.raises(StorageError):
        send(session, agent_event=event("Failed", reason="no key"))
    assert isinstance(cvms.endings[0].error, StorageError)


def test_repeated_events_are_shown_once(cvms: Cvms) -> None:
    for session in (cvms.session(), cvms.session()):
        send(session, agent_event=event("Running"))
    assert len(cvms.shown) == 1


def test_a_foreign_id_writes_nowhere(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, resultChunk=chunk(b"x", last=True, identity="../../evil"))
    send(session, agent_event=pb.AgentEvent(event_type="Complete", computation_id="2"))
    assert cvms.files() == []
    assert cvms.endings == []


def test_why_it_failed(cvms: Cvms) -> None:
    session = cvms.session()
    send(session, agent_event=event("Failed", reason="no key"))
    send(session, agent_event=event("Failed"))
    send(session, run_res=pb.RunResponse(computation_id="1", error="no"))
    assert [each.reason for each in cvms.endings] == ["no key", "the agent names no reason", "no"]
    assert cvms.endings[2].verdict is Verdict.REFUSED


@pytest.mark.parametrize("details", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000])
def test_details_that_are_none(cvms: Cvms, details: bytes) -> None:
    odd = pb.AgentEvent(event_type="Running", computation_id="1", details=details)
    send(cvms.session(), agent_event=odd)
    assert "details" not in cvms.shown[-1]


@pytest.mark.parametrize("manifest", [MANIFEST, b"another"])
def test_what_was_heard_is_remembered_in_few_bytes(cvms: Cvms, manifest: bytes) -> None:
    """A stranger's events may have megabytes, and there may be thousands of them."""
    session = cvms.session()
    cvms.service.show = lambda _: None
    tracemalloc.start()
    try:
        for number in range(20):
            large = event("Running", manifest, reason=f"{number}" + "x" * 2**20)
            large.computation_id = "1" if manifest is MANIFEST else f"{number}" + "x" * 2**20
            send(session, agent_event=large)
            foreign = chunk(b"", identity=f"{number}" + "x" * 2**20)
            send(session, resultChunk=foreign)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8 * 2**20


def test_a_stranger_who_plays_many_vms_does_not_fill_the_record(cvms: Cvms) -> None:
    for number in range(MAX_GIVEN + 5):
        session = Session(cvms.service, f"vm-{number}")
        send(session, agentStateRes=state("Running", MANIFEST))
    assert len(cvms.service.ledger.record.given) == MAX_GIVEN
