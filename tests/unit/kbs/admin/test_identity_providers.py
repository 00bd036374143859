# SPDX-License-Identifier: Apache-2.0
"""Administrators with tokens of identity providers: who gets in, and who must not."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from joserfc import jwt as jose
from joserfc.jwk import ECKey, RSAKey

from cocos.clients.key_sets import KeySet, parse_pem
from cocos.crypto.jwk import parse_set
from cocos.errors import AccessDeniedError, AuthenticationError, ConfigError, UnreachableError
from cocos.kbs.admin.gate import AccessList, AdminRequest
from cocos.kbs.admin.identity_providers import BearerTokens, IdentityProvider

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
SECONDS = int(NOW.timestamp())
PATH = "/kbs/v0/resource/a/b/c"
KEY = ECKey.generate_key("P-256")
OTHER = RSAKey.generate_key(2048)
RULES = AccessList([("admin", "^/kbs/.+$"), ("reader", "^/kbs/v0/reference-value/.+$")])


def claims(**more: Any) -> dict[str, Any]:
    everything = {
        "iss": "issuer",
        "sub": "alice",
        "aud": ["kbs", "other"],
        "role": "admin",
        "exp": SECONDS + 60,
        **more,
    }
    return {name: value for name, value in everything.items() if value is not None}


def token(key: Any = KEY, **more: Any) -> str:
    alg = "RS256" if isinstance(key, RSAKey) else "ES256"
    return jose.encode({"alg": alg}, claims(**more), key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_bytes(KEY.as_pem(private=False))
    keys = {"keys": [OTHER.as_dict(private=False)]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    return tmp_path


def pem(folder: Path) -> KeySet:
    return KeySet(str(folder / "key.pem"), parse_pem, clock=lambda: NOW)


def jwks(folder: Path) -> KeySet:
    return KeySet(str(folder / "keys.json"), parse_set, clock=lambda: NOW)


def gate(*providers: IdentityProvider, **more: Any) -> BearerTokens:
    return BearerTokens(providers, RULES, clock=lambda: NOW, **more)


async def admit(door: BearerTokens, text: str, path: str = PATH) -> str:
    return await door.admit(AdminRequest(f"Bearer {text}", path))


async def test_a_provider_s_token_is_admitted(folder: Path) -> None:
    door = gate(IdentityProvider((pem(folder), jwks(folder)), "issuer", "kbs"))
    assert await admit(door, token()) == "alice@issuer"
    assert await admit(door, token(OTHER, aud="kbs", sub=None)) == "issuer"


REFUSED: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "issuer2"},
    "no issuer": {"iss": None},
    "issuer in a list": {"iss": ["issuer"]},
    "another audience": {"aud": "kbs2"},
    "no audience": {"aud": None},
    "audience in an object": {"aud": {"kbs": 1}},
    "expired": {"exp": SECONDS - 60},
    "no expiry": {"exp": None},
    "expiry in a text": {"exp": str(SECONDS + 60)},
    "not yet valid": {"nbf": SECONDS + 61},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_tokens_that_prove_nothing(folder: Path, name: str) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"))
    with pytest.raises(AuthenticationError, match="Cannot verify token with any of the issuers"):
        await admit(door, token(**REFUSED[name]))


async def test_another_key_proves_nothing(folder: Path) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"))
    for forged in (token(ECKey.generate_key("P-256")), token(OTHER), "a.b.c", "x" * 2_000_000):
        with pytest.raises(AuthenticationError, match="with any of the issuers"):
            await admit(door, forged)


async def test_one_provider_s_key_does_not_speak_for_another(folder: Path) -> None:
    door = gate(
        IdentityProvider((pem(folder),), "issuer", "kbs"),
        IdentityProvider((jwks(folder),), "second", "kbs"),
    )
    assert await admit(door, token(OTHER, iss="second")) == "alice@second"
    for mixed in (token(OTHER), token(iss="second")):
        with pytest.raises(AuthenticationError, match="another issuer"):
            await admit(door, mixed)


async def test_no_rule_is_for_a_role_without_a_name(folder: Path) -> None:
    rules = AccessList([("", "^/kbs/.+$"), ("x", "^/kbs/.+$")])
    provider = IdentityProvider((pem(folder),), "issuer", "kbs")
    with pytest.raises(AccessDeniedError, match="no role"):
        await admit(BearerTokens([provider], rules, clock=lambda: NOW), token(role=["", ""]))


@pytest.mark.parametrize(
    "role", [None, "", [], {}, 1, True, ["operator", 1], "Admin", "admin ", {"admin": 1}, "reader"]
)
async def test_known_but_not_allowed(folder: Path, role: object) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"))
    with pytest.raises(AccessDeniedError, match=r"not allowed|no role"):
        await admit(door, token(role=role))


async def test_a_role_reaches_its_paths_only(folder: Path) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"))
    reader = token(role="reader")
    assert await admit(door, reader, "/kbs/v0/reference-value/svn") == "alice@issuer"
    with pytest.raises(AccessDeniedError, match="Role reader not allowed") as caught:
        await admit(door, reader)
    assert PATH in caught.value.findings[0].problem


@pytest.mark.parametrize(
    ("claim", "members"),
    [
        ("roles", {"roles": ["x", "admin"]}),
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}),
        ("https://id.test/role", {"https://id.test/role": "admin"}),
    ],
)
async def test_the_claim_of_the_roles_can_be_another(
    folder: Path, claim: str, members: dict[str, Any]
) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"), role_claim=claim)
    assert await admit(door, token(role=None, **members)) == "alice@issuer"
    with pytest.raises(AccessDeniedError, match="no role"):
        await admit(door, token(role="admin"))


async def test_a_provider_that_looks_at_nothing(folder: Path) -> None:
    door = gate(IdentityProvider((pem(folder),)))
    assert await admit(door, token(iss="whoever", aud=None)) == "alice@whoever"


@pytest.mark.parametrize("issuer", ["issuer", None])
@pytest.mark.parametrize("audience", ["kbs", None])
def test_who_may_have_made_a_token_for_others_is_warned_of(
    folder: Path, issuer: str | None, audience: str | None
) -> None:
    with structlog.testing.capture_logs() as lines:
        gate(IdentityProvider((pem(folder),), issuer, audience))
    warned = [line for line in lines if line["event"] == "kbs.admin-token-of-any"]
    assert len(warned) == (issuer is None or audience is None)


async def test_a_provider_that_is_away(folder: Path) -> None:
    away = KeySet("https://127.0.0.1:9/jwks", parse_set, clock=lambda: NOW)
    door = gate(
        IdentityProvider((away,), "issuer", "kbs"),
        IdentityProvider((pem(folder),), "issuer", "kbs"),
    )
    assert await admit(door, token()) == "alice@issuer"
    # Of one provider, too, in whatever order: whoever signed may be the one that is away.
    orders = ((away, pem(folder)), (pem(folder), away))
    for one in (door, *(gate(IdentityProvider(keys, "issuer", "kbs")) for keys in orders)):
        with pytest.raises(UnreachableError, match="keys cannot be fetched"):
            await admit(one, token(OTHER))


async def test_one_reason_is_said_once(folder: Path) -> None:
    provider = IdentityProvider((pem(folder),), "issuer", "kbs")
    with pytest.raises(AuthenticationError) as caught:
        await admit(gate(provider, provider), token(iss="other"))
    assert caught.value.message.count("another issuer") == 1


def test_no_provider_at_all() -> None:
    with pytest.raises(ConfigError, match="nobody could administer"):
        gate()


async def test_names_of_strangers_are_made_harmless(folder: Path) -> None:
    door = gate(IdentityProvider((pem(folder),), "issuer", "kbs"))
    name = await admit(door, token(sub="a\nb\x1b[31m" + "c" * 500))
    assert name.isprintable()
    assert len(name) == 128
    open_door = gate(IdentityProvider((pem(folder),)))
    assert await admit(open_door, token(sub=None, iss=None)) == "unnamed"
