# SPDX-License-Identifier: Apache-2.0
"""AMD's certificate authorities: ARK, root of a product, and ASK and ASVK below it.

What is pinned is the key of each ARK. The certificates beside this module are AMD's, so that
evidence verifies without a network; other ASKs of the same root are taken from evidence.
"""

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import ConfigError, EvidenceError
from cocos.evidence.snp import Product, SigningKey
from cocos.verifiers._pinned import key_hash
from cocos.verifiers.collateral import Collateral

PINNED: Final = MappingProxyType(
    {
        Product.MILAN: "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        Product.GENOA: "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        Product.TURIN: "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
    }
)
"""SHA-256 of each ARK's public key as DER SubjectPublicKeyInfo."""

INTERMEDIATE: Final = MappingProxyType({SigningKey.VCEK: "ASK", SigningKey.VLEK: "ASVK"})
_SALT_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class Authority:
    """Root of a product, and the authorities below it by the kind of key that they certify.

    Attributes:
        insecure: Name that an operator gave it for trials; None for AMD's.
    """

    root: x509.Certificate
    intermediates: Mapping[SigningKey, x509.Certificate]
    insecure: str | None = None


class Authorities:
    """Whom a service believes to certify processors.

    Args:
        insecure: For trials: name → root, ASK and ASVK of somebody who is not AMD.
    """

    def __init__(self, insecure: Mapping[str, Authority] | None = None) -> None:
        self._insecure = dict(insecure or {})

    @property
    def insecure(self) -> bool:
        """Whether somebody counts who is not AMD."""
        return bool(self._insecure)

    def of(self, product: Product) -> tuple[Authority, ...]:
        """Return whose chains count for a product; AMD's first."""
        return (_amd(product), *self._insecure.values())


def parse_authority(pem: bytes, name: str) -> Authority:
    """Return somebody's root and what is below it, from PEM certificates in any order.

    The root is the one that issued itself; VLEK in a name says what the other is for.

    Raises:
        ConfigError: not one root and an authority below it.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
        roots = [one for one in found if one.subject == one.issuer]
        others = {
            SigningKey.VLEK if "VLEK" in one.subject.rfc4514_string() else SigningKey.VCEK: one
            for one in found
            if one.subject != one.issuer
        }
    except UNREADABLE as error:
        raise ConfigError(f"{name} does not parse as certificates: {error}") from error
    if len(roots) != 1 or not others:
        raise ConfigError(f"{name} has {len(roots)} roots and {len(others)} authorities below")
    return Authority(roots[0], others, insecure=name)


def why_not_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> str | None:
    """Say why ``issuer`` did not sign ``certificate``; None if it did, as AMD signs."""
    try:
        key = issuer.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return "its issuer has no RSA key"
        if certificate.issuer != issuer.subject:
            return "it names another issuer"
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=_SALT_BYTES)
        key.verify(
            certificate.signature, certificate.tbs_certificate_bytes, scheme, hashes.SHA384()
        )
    except InvalidSignature:
        return "its issuer did not sign it"
    except UNREADABLE as error:
        return f"it does not parse: {error}"
    return None


def why_no_authority(certificate: x509.Certificate, now: dt.datetime) -> str | None:
    """Say why a certificate must not certify others at ``now``; None if it may."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "it does not say that it is an authority"
    except UNREADABLE as error:
        return f"it does not parse: {error}"
    if not basic.ca or not usage.key_cert_sign:
        return "it is no authority"
    return why_not_valid(certificate, now)


def why_not_valid(certificate: x509.Certificate, now: dt.datetime) -> str | None:
    """Say why a certificate is not valid at ``now``; None if it is."""
    if now < certificate.not_valid_before_utc:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    if now > certificate.not_valid_after_utc:
        return f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return None


def revoked(
    product: Product,
    kind: SigningKey,
    chain: tuple[x509.Certificate, ...],
    collateral: Collateral,
    now: dt.datetime,
) -> bool | None:
    """Tell whether AMD revoked a certificate of a chain; None if no list is stored.

    Args:
        product: Whose list.
        kind: Of the key; AMD has a list for each.
        chain: From the root down; each is looked for in its issuer's list.
        collateral: Where the list may be.
        now: When the list has to be current.

    Raises:
        EvidenceError: the list that is stored is not its root's.
    """
    name = crl_name(product, kind)
    try:
        data = collateral.get(name, now)
    except EvidenceError:
        return None
    root = chain[0]
    try:
        listed = x509.load_der_x509_crl(data)
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=_SALT_BYTES)
        key = root.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return None
        key.verify(listed.signature, listed.tbs_certlist_bytes, scheme, hashes.SHA384())
        if listed.next_update_utc is None or not (
            listed.last_update_utc <= now < listed.next_update_utc
        ):
            return None
        # AMD's processors' certificates all have the serial number 0, and are not on it.
        issued = [one for one in chain[1:] if one.issuer == root.subject]
        return any(
            listed.get_revoked_certificate_by_serial_number(one.serial_number) is not None
            for one in issued
        )
    except (InvalidSignature, *UNREADABLE) as error:
        raise EvidenceError(
            f"what is stored as {name} is not AMD's list",
            hint=f"cocos-cli collateral fetch {name}",
        ) from error


def crl_name(product: Product, kind: SigningKey) -> str:
    """Return the name of a revocation list in the collateral."""
    return f"amd/crl/{kind.name.lower()}/{product.lower()}"


@functools.cache
def _amd(product: Product) -> Authority:
    file = resources.files(__package__).joinpath(f"{product.lower()}.pem")
    ask, ark, asvk = x509.load_pem_x509_certificates(file.read_bytes())
    if key_hash(ark) != PINNED[product]:
        raise ConfigError(f"the ARK of {product} in this installation is not AMD's")
    return Authority(ark, {SigningKey.VCEK: ask, SigningKey.VLEK: asvk})
