# SPDX-License-Identifier: Apache-2.0
"""What of a TPM's logs is believed: each rule alone, with PCRs that fit everything else."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from _tpm import (
    EV_EFI_ACTION,
    EV_EVENT_TAG,
    EV_IPL,
    EV_SEPARATOR,
    Logged,
    runtime,
    section,
)

from cocos.errors import EvidenceError, Finding
from cocos.evidence.eventlog import Event, parse_records, replay
from cocos.verifiers._tpm_log import check_logs, cmdline_claims, runtime_claims, uefi_claims
from cocos.wire.manifest.event import ComputationEvent

NO_ACTION, VARIABLE = 3, 0x80000001
EXPLAINED = {*range(8), 9, *range(11, 15)}
BOOT = [Logged(pcr, EV_SEPARATOR, bytes(4)) for pcr in range(8)]


def computation(digit: str = "a", pcr: int = 14) -> Logged:
    digest = digit * 64
    event = ComputationEvent(digest, digest, digest, (digest,), digest, ("",), digest)
    return runtime(*event.measured(), pcr=pcr)


def parsed(*logged: Logged) -> tuple[Event, ...]:
    return tuple(event for each in logged for event in parse_records(each.record))


def pcrs(events: Sequence[Event]) -> list[bytes]:
    return [replay(events, index) for index in range(24)]


def checked(firmware: Sequence[Logged], agent: Sequence[Logged]) -> list[Finding]:
    """What is said of logs that lead to the PCRs."""
    events = parsed(*firmware, *agent)
    return check_logs(events, pcrs(events), firmware=len(firmware))


# --- which PCRs -------------------------------------------------------------------------


@pytest.mark.parametrize("pcr", range(24))
def test_a_pcr_that_a_log_explains_must_be_explained(pcr: int) -> None:
    events = parsed(Logged(10, EV_IPL, b"the kernel's own"))  # no other PCR has any
    quoted = pcrs(events)
    assert check_logs(events, quoted, firmware=len(events)) == []
    quoted[pcr] = b"x" * 32
    found = check_logs(events, quoted, firmware=len(events))
    assert [each.check for each in found] == ([f"tpm.pcr{pcr:02}"] if pcr in EXPLAINED else [])
    # The agent's log alone says nothing of a boot.
    alone = check_logs(
        (), [b"x" * 32 if number == pcr else bytes(32) for number in range(24)], firmware=0
    )
    assert [each.check for each in alone] == (["tpm.pcr14"] if pcr == 14 else [])


@pytest.mark.parametrize("pcr", [8, 10, 15, 16, 17, 22, 23])
def test_what_the_other_pcrs_vouch_for(pcr: int) -> None:
    """PCR 15 has what somebody logs for it; the rest are no log's, or can be reset."""
    made_up = [
        Logged(pcr, EV_IPL, b"x"),
        runtime("owner", "agreed", "x", pcr),
        computation("a", pcr),
    ]
    events = parsed(*BOOT, *made_up)
    believed = pcr == 15
    found = check_logs(events, pcrs(parsed(*BOOT)), firmware=len(events))
    assert [each.check for each in found] == (["tpm.pcr15"] if believed else [])
    assert any(each["index"] == pcr for each in uefi_claims(events)) is believed
    claims = runtime_claims(events)
    assert claims["computations"] == []
    assert [each["index"] for each in claims["runtime_events"]] == [pcr, pcr] * believed


# --- which events ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EV_SEPARATOR, EV_EFI_ACTION, VARIABLE, EV_EVENT_TAG])
def test_a_text_that_was_not_measured(kind: int) -> None:
    true = runtime("a", "b", "c") if kind == EV_EVENT_TAG else Logged(1, kind, b"true")
    other = runtime("a", "b", "d").data if kind == EV_EVENT_TAG else b"other"
    assert checked([true], []) == []
    (found,) = checked([replace(true, data=other, digest=true.extended)], [])
    assert (found.check, found.expected) == ("tpm.event-log.0", true.extended.hex())
    # Of the others the text is a description.
    assert checked([Logged(1, EV_IPL, b"text", true.extended)], []) == []


def test_a_text_without_a_digest() -> None:
    events = [Event(16, EV_SEPARATOR, {"sha1": bytes(20)}, b"")]
    (found,) = check_logs(events, pcrs(()), firmware=1)
    assert found.expected == "no digest"


@pytest.mark.parametrize(
    "disguise",
    [
        lambda event: replace(event, type=EV_IPL),
        lambda event: replace(event, data=b"LEAX" + event.data[4:], digest=event.extended),
        lambda event: replace(event, data=b"", digest=event.extended),
    ],
    ids=["type", "tag", "text"],
)
def test_a_computation_has_no_disguise(disguise: Callable[[Logged], Logged]) -> None:
    """In neither log: who ran before would be missing from the claims."""
    hidden, shown = disguise(computation()), computation("b")
    assert checked(BOOT, [computation(), shown]) == []
    assert checked([*BOOT, computation()], [shown]) == []
    for found in (checked(BOOT, [hidden, shown]), checked([*BOOT, hidden], [shown])):
        assert [each.check for each in found] == [f"tpm.event-log.{len(BOOT)}"]


@pytest.mark.parametrize("event", [Logged(4, EV_IPL, b""), Logged(14, NO_ACTION, b"")])
def test_what_is_not_the_agents_is_not_in_its_log(event: Logged) -> None:
    assert checked([event], [computation()]) == []
    for place, agent in enumerate(([event, computation()], [computation(), event])):
        (found,) = checked([], agent)
        assert found.check == f"tpm.event-log.{place}"


@pytest.mark.parametrize("count", [1, 16, 17, 40])
def test_so_many_are_described(count: int) -> None:
    found = checked([Logged(1, EV_SEPARATOR, b"x", bytes(32))] * count, [])
    described = [f"tpm.event-log.{number}" for number in range(min(count, 16))]
    assert [each.check for each in found] == described + ["tpm.event-log"] * (count > 16)


# --- claims -------------------------------------------------------------------------------


def test_computations_in_their_order() -> None:
    one, two = computation("a"), computation("b")
    said = runtime_claims(parsed(one))
    assert said["computation"] == said["computations"][0]
    both = runtime_claims(parsed(two, one))
    assert [each["manifest_digest"] for each in both["computations"]] == ["b" * 64, "a" * 64]
    assert "computation" not in both
    assert "computation" not in runtime_claims(())


def test_what_else_was_measured() -> None:
    events = parsed(
        runtime("cocos", "other", "x"),
        runtime("other", "computation", "y"),
        computation("a", 13),
        replace(computation(), type=NO_ACTION),
    )
    said = runtime_claims(events)
    assert said["computations"] == []
    assert [(each["index"], each["domain"]) for each in said["runtime_events"]] == [
        (14, "cocos"),
        (14, "other"),
        (13, "cocos"),
    ]


@pytest.mark.parametrize("end", [b"", b"\n", b"\0", b"\n\0"])
@pytest.mark.parametrize(
    ("text", "debug"),
    [
        ("quiet cocos.debug x", True),
        ("cocos.debug", True),
        ("cocos.debug=0", True),
        ("cocos.debugger", False),
        ("xcocos.debug x=cocos.debug", False),
        ("", False),
    ],
)
def test_a_command_line(text: str, end: bytes, *, debug: bool) -> None:
    events = parsed(*section(".linux", b"kernel"), *section(".cmdline", text.encode() + end))
    assert cmdline_claims(events, text) == {"cmdline": text, "debug": debug}
    assert cmdline_claims(events, None) == {}
    with pytest.raises(EvidenceError):
        cmdline_claims(events, text + " x")


@pytest.mark.parametrize(("pcr", "kind"), [(12, EV_IPL), (8, EV_IPL), (11, NO_ACTION)])
def test_a_command_line_that_nothing_vouches_for(pcr: int, kind: int) -> None:
    true, lie = section(".cmdline", b"cocos.debug"), section(".cmdline", b"quiet")
    around = [replace(each, pcr=pcr, type=kind) for each in lie]
    assert cmdline_claims(parsed(*around), "quiet") == {}
    events = parsed(*true, *around)
    assert cmdline_claims(events, "cocos.debug")["debug"] is True
    with pytest.raises(EvidenceError):
        cmdline_claims(events, "quiet")


# --- explanations ---------------------------------------------------------------------------


def blamed(logged: Sequence[Logged], measured: Sequence[Logged]) -> str:
    events = parsed(*logged)
    quoted = pcrs(parsed(*measured))
    (*_, found) = check_logs(events, quoted, firmware=len(events))
    return found.problem.partition(": ")[2]


OTHER = Logged(1, EV_IPL, b"")
A, B, C = (Logged(4, EV_IPL, text) for text in (b"a", b"b", b"c"))


@pytest.mark.parametrize(
    ("logged", "measured", "said"),
    [
        ([OTHER], [OTHER, A], "it has no events of this PCR, but something was measured"),
        ([replace(A, type=NO_ACTION)], [A], "it has no events of this PCR, but something was"),
        ([A, B, C], [A], "event 1 (EV_IPL b) and what follows were never measured"),
        ([A, B, C], [], "event 0 (EV_IPL a) and what follows were never measured"),
        ([A, B, C], [A, C], "event 1 (EV_IPL b) was never measured"),
        ([A, B, C], [B, C], "event 0 (EV_IPL a) was never measured"),
        ([A, B], [B, A], "events are missing, or others than measured; it begins with event 0"),
        ([A, replace(B, digest=bytes(32))], [B], "events are missing, or others than measured"),
        (
            [A, Logged(4, EV_SEPARATOR, b"x"), Logged(4, EV_SEPARATOR, b"y", bytes(32)), B],
            [B],
            "event 2 (EV_SEPARATOR) is the first that is not what was measured",
        ),
    ],
)
def test_which_event_is_to_blame(logged: list[Logged], measured: list[Logged], said: str) -> None:
    assert blamed(logged, measured).startswith(said)


@pytest.mark.parametrize(
    ("count", "place", "found"),
    [(90, 88, True), (91, 89, False), (4096, 0, True), (4097, 0, False)],
)
def test_an_explanation_has_a_price(count: int, place: int, *, found: bool) -> None:
    """The search for one event that was never measured costs the square of what was sent."""
    many = [Logged(4, EV_IPL, str(number).encode()) for number in range(count)]
    said = blamed(many, [*many[:place], *many[place + 1 :]])
    assert said.endswith("was never measured") is found
