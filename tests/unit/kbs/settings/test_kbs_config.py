# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import Any

import pytest

from cocos.cli._common import load_settings
from cocos.errors import ConfigError, UsageError
from cocos.kbs.config import Settings


def load(folder: Path, toml: str = "", **flags: Any) -> Settings:
    file = folder / "kbs.toml"
    file.write_text(toml, "utf-8")
    return load_settings(Settings, file=file, flags=flags)


def test_the_guide_s_flags_listen_for_guests(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        insecure_http=True,
        auth_public_key=Path("kbs-admin.pub"),
        attestation_token_type="CoCo",
    )
    settings.check()
    assert settings.addresses == ("0.0.0.0:8080",)
    assert settings.auth_public_keys == {"admin": Path("kbs-admin.pub")}
    assert settings.tls is None
    assert not settings.insecure_allow_sample


def test_without_authentication_only_this_machine_gets_in(tmp_path: Path) -> None:
    settings = load(tmp_path, insecure_http=True, insecure_api=True)
    settings.check()
    assert settings.addresses == ("127.0.0.1:8080",)
    asked = load(tmp_path, insecure_http=True, insecure_api=True, sockets=["0.0.0.0:0"])
    assert asked.addresses == ("0.0.0.0:0",)


@pytest.mark.parametrize(
    "flags", [{}, {"certificate": Path("c")}, {"private_key": Path("k")}], ids=str
)
def test_https_is_required_and_says_how(tmp_path: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="HTTPS") as caught:
        load(tmp_path, insecure_api=True, **flags).check()
    assert "openssl req -x509" in (caught.value.hint or "")


def test_somebody_must_administer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody") as caught:
        load(tmp_path, insecure_http=True).check()
    assert "openssl genpkey -algorithm ed25519" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "flags",
    [
        {"insecure_http": True, "insecure_api": True, "certificate": Path("c")},
        {"insecure_http": True, "insecure_api": True, "auth_public_key": Path("k")},
        {"insecure_http": True, "insecure_api": True, "deny_admin": True},
    ],
    ids=str,
)
def test_contradictions_are_refused(tmp_path: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        load(tmp_path, **flags).check()


@pytest.mark.parametrize("socket", ["8080", ":8080", "host:", "host:99999", "::1:80", "a:b"])
def test_addresses_are_checked(tmp_path: Path, socket: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        load(tmp_path, insecure_http=True, insecure_api=True, sockets=[socket])
    with pytest.raises(ConfigError, match="not an address"):
        load(tmp_path, f"sockets = ['{socket}']", insecure_http=True, insecure_api=True)


@pytest.mark.parametrize("attestation", ["bultin", "builtin:", "host:50004", "ftp://host", ""])
def test_who_appraises_is_checked(tmp_path: Path, attestation: str) -> None:
    flags: dict[str, Any] = {"insecure_http": True, "insecure_api": True}
    with pytest.raises(UsageError, match="nobody who could appraise") as caught:
        load(tmp_path, **flags, attestation=attestation)
    assert "https://HOST:PORT" in caught.value.message
    with pytest.raises(ConfigError, match="nobody who could appraise"):
        load(tmp_path, f"attestation = '{attestation}'", **flags)
    for possible in ("builtin", "none", "https://h:1", "http://h:1", "unix:/a"):
        load(tmp_path, **flags, attestation=possible).check()


def test_manufacturers_of_tpms(tmp_path: Path) -> None:
    assert load(tmp_path).tpm_ek_ca == ()
    listed = load(tmp_path, 'tpm_ek_ca = ["a.pem", "b.pem"]')
    assert listed.tpm_ek_ca == (Path("a.pem"), Path("b.pem"))
    assert load(tmp_path, 'tpm_ek_ca = ["a.pem"]', tpm_ek_ca=[Path("c")]).tpm_ek_ca == (Path("c"),)
