# SPDX-License-Identifier: Apache-2.0
import ssl
from pathlib import Path

import pytest
import trustme

from cocos.attesters import InsecureSampleAttester
from cocos.clients._http import HttpServer, read_ca
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.errors import ConfigError


def server(url: str = "https://kbs.test", *, ca: str | None = None) -> HttpServer:
    return HttpServer(url, what="the KBS", user_agent="test", ca=ca)


@pytest.mark.parametrize(
    "url", ["http://h", "http://h:8080", "https://h/base/", "http://[::1]:8080", "HTTP://h//"]
)
def test_urls(url: str) -> None:
    assert not server(url).url.endswith("/")


@pytest.mark.parametrize(
    "url",
    [
        *["", "h", "h:8080", "//h", "http://", "http:///x", "ftp://h", "file:///etc/passwd"],
        *[
            "http://h:x",
            "http://h:0",
            "http://h:65536",
            "http://[::1",
            "http://h?a=b",
            "http://h#f",
            "http://-h",
            "http://a b",
            " http://h",
            "http://h[::1]",
            "http://[::1]h:80",
            "http://h\n",
            "http://" + "h." * 10**6,
        ],
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="the URL of the KBS"):
        server(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        server("https://user:hunter2@h")
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("text", ["", "\n", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_ca_that_is_none_never_means_the_systems(text: str) -> None:
    with pytest.raises(ConfigError, match="not PEM"):
        server(ca=text)


def test_a_named_ca_is_the_only_one() -> None:
    pem = trustme.CA().cert_pem.bytes().decode()
    context = server(ca=pem)._transport.tls  # type: ignore[attr-defined]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509"] == 1


def test_certificates_are_checked_by_default() -> None:
    context = server()._transport.tls  # type: ignore[attr-defined]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.pem"):
        read_ca(tmp_path / "absent.pem")
    assert read_ca(None) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"no PEM"])
def test_an_empty_ca_file_never_means_the_systems(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    for make in (
        lambda: KbsClient("https://kbs.test", InsecureSampleAttester(), ca_file=file),
        lambda: KbsAdmin("https://kbs.test", token=None, ca_file=file),
    ):
        with pytest.raises(ConfigError, match=r"ca\.pem, is not PEM"):
            make()
    with pytest.raises(ConfigError, match="not PEM"):
        KbsClient("https://kbs.test", InsecureSampleAttester(), ca=content.decode())
