# SPDX-License-Identifier: Apache-2.0
import base64
import datetime as dt

import msgspec
import pytest

from cocos.errors import AuthenticationError, Finding, FormatError
from cocos.kbs import session as rcar
from cocos.wire.kbs.generations import Generation
from cocos.wire.kbs.protocol import Request, Tee

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(minutes=5)
END = NOW + LIFETIME
LAST = END - dt.timedelta(microseconds=1)
NONCE = bytes(range(32))
TEXT = base64.b64encode(NONCE).decode()


def authed() -> rcar.Authed:
    session, _ = rcar.start(
        Request(version="0.4.0", tee=Tee.SAMPLE, extra_params=""),
        nonce=NONCE,
        now=NOW,
        lifetime=LIFETIME,
    )
    return session


def test_the_challenge_is_the_nonce_in_base64() -> None:
    session, challenge = rcar.start(
        Request(version="0.4.0", tee=Tee.SAMPLE, extra_params={"supported-hash-algorithms": []}),
        nonce=NONCE,
        now=NOW,
        lifetime=LIFETIME,
    )
    assert challenge.nonce == session.nonce == TEXT
    assert len(challenge.nonce) == 44
    assert challenge.extra_params == ""
    assert session.expires == END


@pytest.mark.parametrize(
    "version", ["", "0.4", "0.4.1", "0.3.0", "0.1.0", "0.0.0", "=0.4.0", "0.4.0 ", "9" * 999]
)
def test_another_version_is_refused_and_both_are_named(version: str) -> None:
    with pytest.raises(FormatError, match=r"expect =0\.4\.0 while") as caught:
        rcar.start(
            Request(version=version, tee=Tee.SAMPLE, extra_params=""),
            nonce=NONCE,
            now=NOW,
            lifetime=LIFETIME,
        )
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("generation", Generation)
def test_a_session_keeps_its_generation(generation: Generation) -> None:
    session, _ = rcar.start(
        Request(generation, Tee.SAMPLE, ""), nonce=NONCE, now=NOW, lifetime=LIFETIME
    )
    spent = rcar.spend(rcar.load(rcar.dump(session)), TEXT, NOW)
    done = rcar.attested(rcar.Spent(**msgspec.structs.asdict(spent)), "a.b.c")
    assert {session.generation, spent.generation, rcar.use(done, NOW).generation} == {generation}


@pytest.mark.parametrize(
    ("oldest", "refused"), [("0.1.1", []), ("0.2.0", ["0.1.1"]), ("0.4.0", ["0.1.1", "0.2.0"])]
)
def test_an_operator_can_refuse_old_generations(oldest: str, refused: list[str]) -> None:
    for version in Generation:

        def begin(version: str = version) -> None:
            request, end = Request(version, Tee.SAMPLE, ""), Generation(oldest)
            rcar.start(request, nonce=NONCE, now=NOW, lifetime=LIFETIME, oldest=end)

        if version in refused:
            with pytest.raises(FormatError) as caught:
                begin()
            assert version not in (caught.value.hint or "")
        else:
            begin()


def test_a_short_nonce_is_our_fault() -> None:
    with pytest.raises(ValueError, match="32"):
        rcar.start(Request("0.4.0", Tee.SAMPLE, ""), nonce=b"", now=NOW, lifetime=LIFETIME)


def test_the_whole_way() -> None:
    spent = rcar.spend(authed(), TEXT, LAST)
    assert spent.tee is Tee.SAMPLE
    done = rcar.attested(spent, "a.b.c")
    assert rcar.use(done, LAST).token == "a.b.c"
    assert done.expires == END


def test_a_nonce_is_used_once() -> None:
    spent = rcar.spend(authed(), TEXT, NOW)
    for session in (spent, rcar.attested(spent, "a.b.c")):
        with pytest.raises(AuthenticationError, match="used already"):
            rcar.spend(session, TEXT, NOW)


@pytest.mark.parametrize("nonce", ["", "A" * 44, TEXT[:-1], TEXT + " ", TEXT.lower(), "\u00e4"])
def test_another_nonce_is_refused(nonce: str) -> None:
    with pytest.raises(AuthenticationError, match="not the one"):
        rcar.spend(authed(), nonce, NOW)


def test_an_expired_session_does_nothing() -> None:
    with pytest.raises(AuthenticationError, match="expired"):
        rcar.spend(authed(), TEXT, END)
    done = rcar.attested(rcar.spend(authed(), TEXT, NOW), "a.b.c")
    with pytest.raises(AuthenticationError, match="expired"):
        rcar.use(done, END)


def test_only_an_attested_session_has_a_token() -> None:
    for session in (authed(), rcar.spend(authed(), TEXT, NOW)):
        with pytest.raises(AuthenticationError, match="has not attested"):
            rcar.use(session, NOW)


def test_sessions_survive_the_store() -> None:
    spent = rcar.spend(authed(), TEXT, NOW)
    for session in (authed(), spent, rcar.attested(spent, "a.b.c", (Finding("c", "p"),))):
        assert rcar.load(rcar.dump(session)) == session
    with pytest.raises(FormatError):
        rcar.load(b'{"type":"Attested"}')
