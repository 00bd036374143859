# SPDX-License-Identifier: Apache-2.0
"""What an administrator who is refused is told, and what an operator's rules may be."""

import datetime as dt
import warnings

import pytest
from _kbs import admin_pair

from cocos.crypto import admin_jwt
from cocos.errors import AuthenticationError, ConfigError
from cocos.kbs.admin.gate import AccessList, AdminRequest, SignedTokens

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
ALICE, BOB, CAROL = admin_pair(), admin_pair(), admin_pair()


def bearer(private: bytes, *, now: dt.datetime = NOW) -> AdminRequest:
    return AdminRequest(f"Bearer {admin_jwt.mint(private, now=now)}", "/kbs/v0/resource/a/b/c")


async def test_the_only_administrator_is_told_why() -> None:
    gate = SignedTokens({"alice": ALICE[1]}, clock=lambda: NOW)
    assert await gate.admit(bearer(ALICE[0])) == "alice"
    with pytest.raises(AuthenticationError, match="expired"):
        await gate.admit(bearer(ALICE[0], now=NOW - dt.timedelta(days=1)))
    with pytest.raises(AuthenticationError, match="not signed by the expected key"):
        await gate.admit(bearer(BOB[0]))


async def test_one_of_several_is_told_that_nobody_knows_the_token() -> None:
    gate = SignedTokens({"alice": ALICE[1], "bob": BOB[1]}, clock=lambda: NOW)
    assert await gate.admit(bearer(ALICE[0])) == "alice"
    assert await gate.admit(bearer(BOB[0])) == "bob"
    for private, now in ((CAROL[0], NOW), (ALICE[0], NOW - dt.timedelta(days=1))):
        with pytest.raises(AuthenticationError, match="any of the issuers"):
            await gate.admit(bearer(private, now=now))


async def test_without_keys_nobody_is_admitted() -> None:
    with pytest.raises(AuthenticationError, match="any of the issuers"):
        await SignedTokens({}, clock=lambda: NOW).admit(bearer(ALICE[0]))


@pytest.mark.parametrize("pattern", ["^/kbs/[[:alpha:]]+$", "^/kbs/[a--b]$"])
def test_a_rule_that_means_something_else_elsewhere_is_refused(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ConfigError, match="not a regular expression"):
            AccessList([("admin", pattern)])
