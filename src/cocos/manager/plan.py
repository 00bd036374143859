# SPDX-License-Identifier: Apache-2.0
"""What a VM shall be: a request, checked whole before anything starts."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509

from cocos.crypto import private_keys
from cocos.errors import FormatError
from cocos.wire.aa_kbc_params import KBS
from cocos.wire.address import parse_cvms
from cocos.wire.duration import parse_duration
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourceUri
from cocos.wire.vm_init_data import CREDENTIALS

LOG_LEVELS = ("debug", "info", "warn", "warning", "error")


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A request as it came; field by field as in ``manager.CreateReq``."""

    cvms_url: str
    log_level: str = ""
    ttl: str = ""
    kbs_params: str = ""
    ca_url: str = ""
    server_ca: bytes = field(default=b"", repr=False)
    client_cert: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    registry_ca: bytes = b""
    registry_credentials: str = ""
    certs_token: str = field(default="", repr=False)
    keep: bool = False
    aws: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class VmPlan:
    """A VM to start; every field has been checked.

    Attributes:
        cvms: Address that the agent dials, ``host:port``.
        log_level: For the guest's programs: debug, info, warning or error.
        ttl: Life time, or None for no limit.
        kbs_params: ``cc_kbc::ADDRESS``, or empty.
        keep: Whether the VM goes on when its computation has ended.
        server_ca: PEM certificates that the CVMS must chain to, or empty for plaintext.
        client_cert: PEM certificate chain that the agent shows to the CVMS, or empty.
        client_key: PEM private key of it.
        variables: More environment of the agent; may hold secrets.
        registry_ca: PEM certificates that registries may chain to, or empty.
    """

    cvms: str
    log_level: str
    ttl: dt.timedelta | None
    kbs_params: str
    keep: bool
    server_ca: bytes = field(repr=False)
    client_cert: bytes = field(repr=False)
    client_key: bytes = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)
    registry_ca: bytes = b""


def make_plan(request: CreateRequest) -> VmPlan:
    """Check a request.

    Raises:
        FormatError: names the field and what is wrong with it.
    """
    has_ca, has_certificate = bool(request.server_ca), bool(request.client_cert)
    cvms = parse_cvms(request.cvms_url, ca=has_ca, certificate=has_certificate)
    if has_ca:
        _check_certificates(request.server_ca, "the CVMS's CA certificate")
    _check_client(request.client_cert, request.client_key)
    if request.registry_ca:
        _check_certificates(request.registry_ca, "the registries' CA certificate")
    variables = {
        CREDENTIALS: _credentials(request),
        "AGENT_CVM_CA_URL": request.ca_url,
        "AGENT_CERTS_TOKEN": request.certs_token,
        **request.aws,
    }
    return VmPlan(
        cvms=str(cvms),
        log_level=_log_level(request.log_level),
        ttl=parse_ttl(request.ttl),
        kbs_params=parse_kbs_params(request.kbs_params),
        keep=request.keep,
        server_ca=request.server_ca,
        client_cert=request.client_cert,
        client_key=request.client_key,
        variables={name: _one_line(name, value) for name, value in variables.items() if value},
        registry_ca=request.registry_ca,
    )


def parse_ttl(text: str) -> dt.timedelta | None:
    """Parse a Go duration such as ``1h30m`` or ``1.5s``; empty means no limit.

    Raises:
        FormatError: not a duration, not positive, or far too long.
    """
    return parse_duration(text, "the time to live") if text else None


def parse_kbs_params(text: str) -> str:
    """Check ``cc_kbc::ADDRESS``. Empty stays empty.

    Returns:
        The same, the address (:mod:`cocos.wire.kbs.address`) in its one spelling.

    Raises:
        FormatError: another key broker client, or no address of a KBS.
    """
    if not text:
        return ""
    client, _, address = text.partition("::")
    problem = f"{text[:50]!r} does not begin with {KBS}::"
    try:
        if client == KBS:
            return f"{KBS}::{KbsAddress.parse(address)}"
    except FormatError as error:
        problem = error.message
    raise FormatError(
        f"no KBS address for a guest: {problem}",
        hint=f"write {KBS}::http://HOST:8080#token-key=…, or without # to believe whoever answers",
    )


def _credentials(request: CreateRequest) -> str:
    text = request.registry_credentials
    if text and not request.kbs_params:
        raise FormatError(
            "the registries' credentials are at a KBS, but none is named", hint="--kbs"
        )
    return str(ResourceUri.parse(text)) if text else ""


def _log_level(text: str) -> str:
    level = text.lower() or "info"
    if level not in LOG_LEVELS:
        raise FormatError(f"{text[:40]!r} is no log level", hint="debug, info, warning or error")
    return "warning" if level == "warn" else level


def _one_line(name: str, value: str) -> str:
    if not value.isprintable():
        raise FormatError(f"the value for {name} has characters that no such value has")
    return value


def _check_client(cert: bytes, key: bytes) -> None:
    if bool(cert) != bool(key):
        raise FormatError(
            "a client certificate and its key belong together",
            hint="give both --agent-certificate and --agent-private-key, or none",
        )
    if not cert:
        return
    leaf = _check_certificates(cert, "the client certificate")
    try:
        private = private_keys.load(key)
    except private_keys.UNREADABLE as error:
        raise FormatError("the client key is no unencrypted PEM private key") from error
    if private.public_key() != leaf.public_key():
        raise FormatError("the client key does not belong to the client certificate")


def _check_certificates(pem: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise FormatError(f"{what} is no PEM certificate") from error
