# SPDX-License-Identifier: Apache-2.0
"""Whose CA is whose: an operator cannot take a TPM vendor's for a manager's by mistake."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cocos.errors import ConfigError, Finding
from cocos.evidence.endorsement import MANAGER_CA_POLICY, TRUSTED_EK, fingerprint
from cocos.host.machines.swtpm import TpmCa
from cocos.verifiers.tpm import Authorities, Kind, parse_cas

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
EK_USAGE = x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")])
MARK = x509.CertificatePolicies([x509.PolicyInformation(MANAGER_CA_POLICY, None)])
OTHER_POLICY = x509.CertificatePolicies(
    [x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)]
)
EK = rsa.generate_private_key(65537, 2048).public_key()
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("a", "b", "c")}


def certificate(
    name: str, issuer: str, *extensions: x509.ExtensionType, ca: bool = True, key: Any = None
) -> x509.Certificate:
    """A certificate of ``name``'s key by ``issuer``'s."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key or KEYS[name].public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEYS[issuer], hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def ek(issuer: str) -> bytes:
    found = certificate("tpm", issuer, EK_USAGE, ca=False, key=EK)
    return found.public_bytes(serialization.Encoding.DER)


VENDOR, MANAGER = certificate("a", "a"), certificate("b", "b", MARK)


def test_a_managers_ca_may_have_other_policies_too() -> None:
    both = certificate("c", "c", x509.CertificatePolicies([*OTHER_POLICY, *MARK]))
    assert parse_cas(pem(both), "file", Kind.MANAGER) == (both,)
    with pytest.raises(ConfigError, match="is a manager's CA"):
        parse_cas(pem(both), "file", Kind.VENDOR)


def test_what_a_manager_makes_is_a_managers(tmp_path: Path) -> None:
    made = TpmCa(tmp_path / "ca")
    made.make(NOW)
    data = made.certificate_file.read_bytes()
    (found,) = parse_cas(data, "file", Kind.MANAGER)
    assert found.public_bytes(serialization.Encoding.PEM) == data
    with pytest.raises(ConfigError, match="is a manager's CA") as caught:
        parse_cas(data, "file", Kind.VENDOR)
    assert "--tpm-ek-ca" in (caught.value.hint or "")


def test_files_of_vendors() -> None:
    intermediate = certificate("c", "a")
    assert parse_cas(pem(VENDOR, intermediate), "file", Kind.VENDOR) == (VENDOR, intermediate)


@pytest.mark.parametrize(
    "cas",
    [
        (VENDOR,),
        (MANAGER, VENDOR),
        (certificate("a", "a", OTHER_POLICY),),
        (certificate("c", "a", MARK),),  # an intermediate of a vendor's, marked
        (certificate("c", "b", MARK),),  # and one of a manager's, which certifies TPMs alone
        (certificate("c", "b"),),
    ],
    ids=["vendor", "one of two", "another policy", "below a vendor", "below a manager", "unmarked"],
)
def test_a_managers_ca_is_not_taken_on_faith(cas: tuple[x509.Certificate, ...]) -> None:
    with pytest.raises(ConfigError, match="was not made by a manager") as caught:
        parse_cas(pem(*cas), "file", Kind.MANAGER)
    assert "--tpm-vendor-ca" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", Kind)
def test_files_that_are_none(kind: Kind) -> None:
    for bad in (b"", b"junk", pem(VENDOR)[:-30]):
        with pytest.raises(ConfigError, match="file holds no certificates"):
            parse_cas(bad, "file", kind)
    for leaf in (
        certificate("tpm", "a", EK_USAGE, ca=False, key=EK),
        certificate("b", "b", ca=False),
    ):
        with pytest.raises(ConfigError, match="is no CA"):
            parse_cas(pem(leaf), "file", kind)


def changed(found: x509.Certificate, old: str, new: str) -> x509.Certificate:
    data = found.public_bytes(serialization.Encoding.DER)
    assert data.count(bytes.fromhex(old)) == 1
    return x509.load_der_x509_certificate(data.replace(bytes.fromhex(old), bytes.fromhex(new)))


@pytest.mark.parametrize("kind", Kind)
def test_a_ca_says_that_it_is_one_and_has_a_key(kind: Kind) -> None:
    basic_constraints, p256 = "0603551d13", "06082a8648ce3d030107"
    for bad in (
        changed(VENDOR, basic_constraints, "060355047f"),
        changed(VENDOR, p256, p256[:-2] + "7f"),
    ):
        with pytest.raises(ConfigError, match="is no CA"):
            parse_cas(pem(bad), "file", kind)


def test_nobody_is_both() -> None:
    """Not by another certificate for the same key either."""
    twin = certificate("b", "b")
    assert parse_cas(pem(twin), "file", Kind.VENDOR) == (twin,)
    for vendors in ([twin], [VENDOR, twin], [MANAGER]):
        with pytest.raises(ConfigError, match="CN=b is given as a manager's CA and as"):
            Authorities([MANAGER], vendors)


def test_keys_that_nobody_could_certify() -> None:
    for managers in ([], [MANAGER]):
        with pytest.raises(ConfigError, match="no TPM vendor's CA is trusted"):
            Authorities(managers, allowed=["00" * 32])


def test_an_intermediate_counts_as_what_it_was_given_as() -> None:
    """Not as what the CA above it is: only a certificate's own issuer counts."""
    below = certificate("c", "b")
    both = Authorities([MANAGER], [VENDOR, below])
    for issuer, kind, ca in (
        ("a", Kind.VENDOR, VENDOR),
        ("b", Kind.MANAGER, MANAGER),
        ("c", Kind.VENDOR, below),
    ):
        found = both.endorsement(ek(issuer), NOW)
        assert not isinstance(found, Finding)
        assert (found.kind, found.ca) == (kind, ca)
    # Without it, the one above vouches for nothing that it signed.
    unknown = Authorities([MANAGER], [VENDOR]).endorsement(ek("c"), NOW)
    assert isinstance(unknown, Finding)
    assert unknown.expected == "CN=b; CN=a"


def test_a_ca_that_has_expired_lends_no_kind() -> None:
    late = Authorities([MANAGER], [VENDOR]).endorsement(ek("b"), NOW + 2 * DAY)
    assert isinstance(late, Finding)


def test_a_certificate_is_good_from_its_first_second_to_its_last() -> None:
    """Both belong to it (RFC 5280 §4.1.2.5); and nothing else does."""
    authorities, second = Authorities([MANAGER]), dt.timedelta(seconds=1)
    for good in (NOW - DAY, NOW + DAY):
        assert not isinstance(authorities.endorsement(ek("b"), good), Finding)
    for bad in (NOW - DAY - second, NOW + DAY + second):
        assert isinstance(authorities.endorsement(ek("b"), bad), Finding)


def test_without_a_ca_nobody_is_believed() -> None:
    found = Authorities().endorsement(ek("a"), NOW)
    assert isinstance(found, Finding)
    assert (found.expected or "").startswith("none is configured: kbs --tpm-ek-ca")


@pytest.mark.parametrize(
    "key",
    [dsa.generate_private_key(2048), ed25519.Ed25519PrivateKey.generate()],
    ids=["as long as an RSA key", "without a length"],
)
def test_a_key_that_cannot_be_challenged(key: Any) -> None:
    """Who certified it does not matter: it is no way to learn that the TPM has anything."""
    other = certificate("tpm", "b", EK_USAGE, ca=False, key=key.public_key())
    found = Authorities([MANAGER]).endorsement(other.public_bytes(serialization.Encoding.DER), NOW)
    assert isinstance(found, Finding)
    assert "cannot be challenged" in found.problem


@pytest.mark.parametrize(
    "registered",
    [None, [], "", {}, fingerprint(EK), [fingerprint(EK)[:-1]], [None], [[]], True],
    ids=["null", "none", "text", "object", "no list", "cut", "list of null", "nested", "true"],
)
def test_who_is_not_on_the_list_is_not_allowed(registered: Any) -> None:
    authorities = Authorities(vendors=[VENDOR], allowed=["00" * 32])
    found = authorities.endorsement(ek("a"), NOW)
    assert not isinstance(found, Finding)
    assert not authorities.allows(found, {} if registered is None else {TRUSTED_EK: registered})
    assert not authorities.allows(found, {"trusted_ak": [fingerprint(EK)]})
    assert authorities.allows(found, {TRUSTED_EK: [None, {}, fingerprint(EK)]})
    assert Authorities(vendors=[VENDOR], allowed=[fingerprint(EK)]).allows(found, {})
