# SPDX-License-Identifier: Apache-2.0
"""Roots of processors that are nobody's but the operator's, for trials."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import structlog
from cryptography import x509

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import ConfigError
from cocos.host.files import read_file
from cocos.verifiers import InsecureRoots
from cocos.verifiers.amd.authorities import parse_authority

_log = structlog.get_logger(__name__)


def insecure_roots(files: Mapping[str, Path]) -> InsecureRoots:
    """Return the roots that an operator named, and warn of each.

    Args:
        files: Maker whose place a root takes → PEM file.

    Raises:
        ConfigError: a file is not what its maker's root is.
    """
    found: dict[str, Any] = {}
    for maker, file in files.items():
        data = read_file(file, f"the root in {maker}'s place", limit=2**20)
        found[maker] = _PARSE[maker](data, str(file))
        _log.warning(
            "attestation.INSECURE-TRUST-ROOT",
            maker=maker,
            meaning="evidence that leads to this root is believed; it proves nothing",
        )
    return InsecureRoots(**found)


def _certificate(pem: bytes, name: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except UNREADABLE as error:
        raise ConfigError(f"{name} does not parse as a certificate: {error}") from error


_PARSE: Final[Mapping[str, Callable[[bytes, str], Any]]] = MappingProxyType(
    {"amd": parse_authority, **dict.fromkeys(("intel", "nvidia"), _certificate)}
)
