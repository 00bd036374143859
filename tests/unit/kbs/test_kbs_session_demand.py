# SPDX-License-Identifier: Apache-2.0
"""A challenge that comes from an attestation service: which nonces a session takes."""

import base64
import datetime as dt

import pytest

from cocos.errors import ProtocolError
from cocos.kbs import session as rcar
from cocos.wire.kbs.protocol import Request, Tee

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def begun() -> rcar.Authed:
    session, _ = rcar.start(
        Request(version="0.4.0", tee=Tee.TPM, extra_params=""),
        nonce=bytes(32),
        now=NOW,
        lifetime=dt.timedelta(1),
    )
    return session


def test_the_services_nonce_takes_the_place_of_the_sessions() -> None:
    nonce = base64.b64encode(bytes(range(32))).decode()
    session, challenge = rcar.demand(begun(), nonce, {"a": 1}, "kept")
    assert (session.nonce, session.kept) == (nonce, "kept")
    assert (challenge.nonce, challenge.extra_params) == (nonce, {"tpm": {"a": 1}})
    assert rcar.spend(session, nonce, NOW).tee is Tee.TPM


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_nonce_of_another_length(size: int) -> None:
    with pytest.raises(ProtocolError, match="has not 32 bytes"):
        rcar.demand(begun(), base64.b64encode(bytes(size)).decode(), {}, "")


@pytest.mark.parametrize("nonce", ["!", "A", "é" * 44, "A" * 43])
def test_what_is_no_nonce(nonce: str) -> None:
    with pytest.raises(ProtocolError, match="challenge has no nonce"):
        rcar.demand(begun(), nonce, {}, "")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_session_begins_with_a_nonce_of_ours(size: int) -> None:
    request = Request(version="0.4.0", tee=Tee.SAMPLE, extra_params="")
    with pytest.raises(ValueError, match="32 bytes"):
        rcar.start(request, nonce=bytes(size), now=NOW, lifetime=dt.timedelta(1))
