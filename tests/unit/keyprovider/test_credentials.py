# SPDX-License-Identifier: Apache-2.0
"""One set of credentials for every client of a KBS's administrators, beside Trustee's access lists."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _kbs import URL, InProcessKbs, admin_pair, kbs_in_process
from _through import Through

from cocos._clock import system_clock
from cocos.cli import _admin
from cocos.cli.kbs_client.admin import Connection
from cocos.clients.admin_credentials import Credentials
from cocos.clients.kbs import KbsAdmin
from cocos.crypto import admin_jwt
from cocos.errors import AccessDeniedError, AuthenticationError, ConfigError, UsageError
from cocos.kbs.config import AccessRule, ProviderSettings
from cocos.keyprovider.registration import Registrar

NO_CLAIMS = (None, None, None)
ISSUER, AUDIENCE = "TrusteeInDocker", "kbs"


@pytest.fixture
async def keys(tmp_path: Path) -> Path:
    """A folder with the administrator's pair, and somebody else's."""
    for name in ("admin", "other"):
        private, public = admin_pair()
        (tmp_path / f"{name}.key").write_bytes(private)
        (tmp_path / f"{name}.pub").write_bytes(public)
    return tmp_path


@pytest.fixture
async def trustee(keys: Path) -> AsyncIterator[InProcessKbs]:
    """A KBS with the settings of Trustee's compose file since v0.21."""
    provider = ProviderSettings(
        issuer=ISSUER, audience=AUDIENCE, public_key_uri=str(keys / "admin.pub")
    )
    rule = AccessRule(role="admin", allowed_endpoints="^/kbs/.+$")
    async with kbs_in_process(
        keys / "kbs", identity_providers=(provider,), access_rules=(rule,)
    ) as kbs:
        yield kbs


def asking(kbs: InProcessKbs, proof: Credentials) -> KbsAdmin:
    return KbsAdmin(
        URL,
        token=proof.bearer(kbs.clock),
        advice=proof.advice,
        transport=Through(kbs.transport(), URL),
    )


async def test_role_and_issuer_are_in_the_token(trustee: InProcessKbs, keys: Path) -> None:
    made_with = (None, ISSUER, AUDIENCE)
    async with asking(trustee, _admin.credentials(keys / "admin.key", None, *made_with)) as admin:
        assert await admin.list_resources() == []
    reader = ("reader", ISSUER, AUDIENCE)
    async with asking(trustee, _admin.credentials(keys / "admin.key", None, *reader)) as admin:
        with pytest.raises(AccessDeniedError, match="Role reader not allowed"):
            await admin.list_resources()


async def test_what_is_missing_is_named(trustee: InProcessKbs, keys: Path) -> None:
    for private, made_with in (
        ("admin.key", NO_CLAIMS),
        ("admin.key", (None, ISSUER, None)),
        ("admin.key", (None, "other", AUDIENCE)),
        ("other.key", (None, ISSUER, AUDIENCE)),
    ):
        proof = _admin.credentials(keys / private, None, *made_with)
        async with asking(trustee, proof) as admin:
            with pytest.raises(AuthenticationError) as caught:
                await admin.list_resources()
        hint = caught.value.hint or ""
        assert f"{keys / private} is not the pair of the KBS's key" in hint
        assert "--issuer" in hint
        assert "--role" in hint
    nobody = _admin.credentials(None, None, *NO_CLAIMS, look=False)
    async with asking(trustee, nobody) as admin:
        with pytest.raises(AuthenticationError) as caught:
            await admin.list_resources()
    assert (caught.value.hint or "").startswith("give --auth-private-key FILE or --admin-token-")


async def test_a_token_in_a_file(trustee: InProcessKbs, keys: Path) -> None:
    claims = {"iss": ISSUER, "aud": AUDIENCE}
    token = admin_jwt.mint((keys / "admin.key").read_bytes(), now=trustee.now, claims=claims)
    (keys / "token").write_text(f"{token}\n")
    async with asking(trustee, _admin.credentials(None, keys / "token", *NO_CLAIMS)) as admin:
        assert await admin.list_resources() == []
    (keys / "token").write_text("a.b.c")
    async with asking(trustee, _admin.credentials(None, keys / "token", *NO_CLAIMS)) as admin:
        with pytest.raises(AuthenticationError) as caught:
            await admin.list_resources()
    assert str(keys / "token") in (caught.value.hint or "")
    (keys / "token").write_bytes(b"\xff\n\x00")
    with pytest.raises(ConfigError, match="holds no token"):
        _admin.credentials(None, keys / "token", *NO_CLAIMS)
    with pytest.raises(UsageError):
        _admin.credentials(keys / "admin.key", keys / "token", *NO_CLAIMS)


def test_secrets_are_not_shown() -> None:
    private, _ = admin_pair()
    proof = Credentials(token="SECRET", private_key=private)
    assert "SECRET" not in repr(proof)
    assert "PRIVATE" not in repr(proof)
    assert proof
    assert not Credentials()


async def test_a_key_of_the_simple_kind_needs_no_claims(tmp_path: Path, keys: Path) -> None:
    """The role that every token has is passed over by KBSs that look at keys only."""
    async with kbs_in_process(tmp_path / "kbs2") as kbs:
        (keys / "mine.key").write_bytes(kbs.admin_key)
        async with asking(kbs, _admin.credentials(keys / "mine.key", None, *NO_CLAIMS)) as admin:
            assert await admin.list_resources() == []


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("https://kbs.example", True),
        ("http://kbs.example:8080", False),
        ("http://10.0.0.1:8080", False),
        ("http://localhost.kbs.example:8080", False),
        ("http://127.0.0.1.kbs.example", False),
        ("http://[fd00::1]:8080", False),
    ],
)
async def test_a_token_that_nobody_named_stays_on_this_machine_or_under_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, *, sent: bool
) -> None:
    """Whoever reads it on the way is an administrator."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".trustee/admin-token"
    file.parent.mkdir()
    file.write_text("a.b.c")
    proof = _admin.credentials(None, None, *NO_CLAIMS)
    assert proof.token == "a.b.c"
    named = _admin.credentials(None, file, *NO_CLAIMS)
    for make in (
        lambda who: Connection(url, None, who).admin(),
        lambda who: Registrar(url, credentials=who, clock=system_clock, binding=None),
    ):
        make(named)
        make(Credentials())
        if sent:
            make(proof)
            continue
        with pytest.raises(ConfigError, match="plain HTTP") as caught:
            make(proof)
        assert "a.b.c" not in f"{caught.value} {caught.value.hint}"
