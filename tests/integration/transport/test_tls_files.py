# SPDX-License-Identifier: Apache-2.0
"""Certificates and keys as people make them: served, warned of, or refused with a sentence."""

import datetime as dt
import sys
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from cocos.errors import ConfigError
from cocos.host import process
from cocos.transport.http_server import serve_http
from cocos.transport.rpc import server_credentials
from cocos.transport.tls_files import TlsFiles
from cocos.transport.web import WebApp

pytestmark = pytest.mark.integration

APP = WebApp([])
NOW = dt.datetime.now(dt.UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
DAY = dt.timedelta(1)


def pem(key: object) -> bytes:
    made: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made


def certificate(
    key: object, *, ends: dt.datetime = NOW + DAY, begins: dt.datetime = NOW - 9 * DAY,
    san: bool = True, ca: bool = False, algorithm: object = None,
) -> x509.Certificate:  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())  # type: ignore[attr-defined]
        .serial_number(7)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
    )
    if san:
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = builder.add_extension(names, critical=False)
    if algorithm is None and not isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = hashes.SHA256()
    return builder.sign(key, algorithm)  # type: ignore[arg-type]


def files(folder: Path, key: object, *chain: x509.Certificate) -> TlsFiles:
    made = TlsFiles(folder / "c.pem", folder / "k.pem")
    made.private_key.write_bytes(pem(key))
    made.certificate.write_bytes(
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    )
    return made


async def served(tls: TlsFiles) -> list[str]:
    """Serve, and return what was warned of."""
    with structlog.testing.capture_logs() as logs:
        async with serve_http(APP, "127.0.0.1:0", tls=tls) as url:
            assert url.startswith("https://")
    return [entry["problem"] for entry in logs if entry["event"] == "tls.certificate"]


EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


async def test_a_certificate_of_the_first_version(tmp_path: Path) -> None:
    """As every second tutorial makes them: openssl x509 -req -signkey without extensions."""
    request, key, made = (tmp_path / name for name in ("r", "k.pem", "c.pem"))
    key.write_bytes(pem(RSA))
    await process.run(["openssl", "req", "-new", "-key", key, "-subj", "/CN=x", "-out", request])
    await process.run(
        ["openssl", "x509", "-req", "-in", request, "-signkey", key, "-days", "9", "-out", made]
    )
    assert x509.load_pem_x509_certificate(made.read_bytes()).version is x509.Version.v1
    with pytest.raises(ConfigError, match=r"it is X\.509 v1") as caught:
        await served(TlsFiles(made, key))
    assert "openssl req -x509" in (caught.value.hint or "")
    assert "-addext subjectAltName" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "key",
    [
        EC,
        RSA,
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "rsa", "p384", "p521", "ed25519"],
)
async def test_keys_are_served_or_refused_with_a_sentence(tmp_path: Path, key: object) -> None:
    """Whatever rustls thinks of them: nobody's process ends for it."""
    try:
        assert await served(files(tmp_path, key, certificate(key))) == []
    except ConfigError as error:
        assert "does not take them (General(" in error.message  # noqa: PT017
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp521r1"


@pytest.mark.parametrize(
    ("curve", "word"), [(ec.SECP256K1(), "does not take them"), (ec.BrainpoolP256R1(), "not take")]
)
async def test_curves_that_tls_does_not_have(
    tmp_path: Path, curve: ec.EllipticCurve, word: str
) -> None:
    key = ec.generate_private_key(curve)
    with pytest.raises(ConfigError, match=word):
        await served(files(tmp_path, key, certificate(key)))


async def test_what_no_client_accepts_is_warned_of(tmp_path: Path) -> None:
    expired = certificate(EC, ends=NOW - DAY)
    assert "has expired" in " ".join(await served(files(tmp_path, EC, expired)))
    early = certificate(EC, begins=NOW + DAY, ends=NOW + 2 * DAY)
    assert "is valid from" in " ".join(await served(files(tmp_path, EC, early)))
    nameless = certificate(EC, san=False)
    assert "subjectAltName" in " ".join(await served(files(tmp_path, EC, nameless)))
    assert await served(files(tmp_path, EC, certificate(EC, ca=True))) == []


async def test_files_in_other_forms_are_named(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    tls = files(tmp_path, EC, certificate(other), certificate(EC))
    hints = {"comes first": tls}
    for name, word in (("enc", "is encrypted"), ("der", "DER"), ("p12", "pkcs12"), ("no", "PEM")):
        (tmp_path / name).mkdir()
        hints[word] = files(tmp_path / name, EC, certificate(EC))
    hints["is encrypted"].private_key.write_bytes(
        EC.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"x"),
        )
    )
    der = certificate(EC).public_bytes(serialization.Encoding.DER)
    hints["DER"].certificate.write_bytes(der)
    hints["pkcs12"].certificate.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"x", EC, certificate(EC), None, serialization.NoEncryption()
        )
    )
    hints["PEM"].certificate.write_bytes(b"nothing")
    for word, each in hints.items():
        with pytest.raises(ConfigError, match="cannot use the certificate") as caught:
            each.check()
        assert word in (caught.value.hint or "")
        with pytest.raises(ConfigError):
            server_credentials(each.certificate, each.private_key, [], "a CA")


async def test_weak_keys_are_refused(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        await served(files(tmp_path, weak, certificate(weak)))


async def test_grpc_serves_what_it_always_did(tmp_path: Path) -> None:
    tls = files(tmp_path, RSA, certificate(RSA))
    assert server_credentials(tls.certificate, tls.private_key, [], "a CA") is not None


async def test_the_probe_says_nothing_when_all_is_well(tmp_path: Path) -> None:
    tls = files(tmp_path, EC, certificate(EC))
    argv = [sys.executable, "-P", "-m", "cocos.transport.tls_probe"]
    done = await process.run([*argv, tls.certificate, tls.private_key, "1.2"])
    assert (done.stdout, done.stderr) == (b"", b"")
