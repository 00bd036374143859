# SPDX-License-Identifier: Apache-2.0
"""Errors in the words of Trustee's KBS: its ``type``, and a ``detail`` that begins like its own.

Clients look for Trustee's texts; what is ours comes after the colon.
"""

from collections.abc import Mapping
from typing import Final

from cocos import errors
from cocos.errors import CocosError
from cocos.transport.web import Failed
from cocos.wire.kbs.protocol import PROBLEM_TYPE

_NEUTRAL: Final = "about:blank"  # RFC 9457 §4.2.1: the status says it all
_GUEST: Final[Mapping[type[CocosError], str]] = {
    errors.AuthenticationError: "TokenNotFound",
    errors.EvidenceError: "TokenVerifierError",
    errors.AccessDeniedError: "PolicyDeny",
    errors.PolicyFailedError: "PolicyEngineError",
    errors.TeeKeyError: "JweError",
}
_ADMIN: Final = (errors.AuthenticationError, errors.AccessDeniedError)
_ENDPOINTS: Final[Mapping[str, str | None]] = {
    "attest": "AttestationError",
    "attestation-policy": "AttestationError",
    "audit": None,
    "auth": "AttestationError",
    "denial": None,
    "reference-value": "RvpsError",
    "resource": "PluginInternalError",
    "resource-policy": "ParsePolicyError",
    "unbound-key": None,
}
_SETS: Final = frozenset({"POST", "PUT"})
_WORDS: Final = {
    "AdminAuthAccess": "admin access denied for endpoint {endpoint}",
    "JweError": "JWE failed",
    "ParsePolicyError": "Failed to parse policy",
    "PluginInternalError": "Plugin internal error",
    "PluginNotFound": "Plugin {endpoint} not found",
    "PolicyDeny": "Access denied by policy",
    "PolicyEngineError": "Policy engine error",
    "RvpsError": "RVPS configuration failed",
    "TokenNotFound": "Attestation Token not found",
    "TokenVerifierError": "Token Verifier error",
}
_STEPS: Final = {
    "auth": "Attestation error: RCAR handshake Auth failed",
    "attest": "Attestation error: RCAR handshake Attest failed",
    "attestation-policy": "Attestation error: Set Attestation Policy failed",
}


def describe(failed: Failed, prefix: str) -> tuple[str, str]:
    """Return ``type`` and ``detail`` of a problem document.

    Args:
        failed: What failed.
        prefix: Path that all routes of the protocol begin with, without a slash at the end.
    """
    message = failed.error.message
    endpoint, _, rest = failed.path.removeprefix(f"{prefix}/").partition("/")
    ours = failed.path.startswith(f"{prefix}/")
    variant = _variant(failed, endpoint, rest) if ours else None
    if variant is None:
        return _NEUTRAL, message
    words = _STEPS[endpoint] if variant == "AttestationError" else _WORDS[variant]
    words = words.format(endpoint=endpoint)
    detail = message if message.startswith(words) else f"{words}: {message}"
    return f"{PROBLEM_TYPE}{variant}", detail


def _variant(failed: Failed, endpoint: str, rest: str) -> str | None:
    """Return Trustee's name of an error; None where it would say something else."""
    error, method = failed.error, failed.method
    if endpoint not in _ENDPOINTS:
        return "PluginNotFound" if isinstance(error, errors.NotFoundError) else None
    variant = _ENDPOINTS[endpoint]
    if endpoint in {"auth", "attest"}:
        return variant
    if endpoint == "resource" and rest and method in {"GET", "HEAD"}:
        return _GUEST.get(type(error), variant)
    if isinstance(error, _ADMIN):
        return "AdminAuthAccess"
    parsed = endpoint != "resource-policy" or isinstance(error, errors.FormatError)
    if endpoint.endswith("-policy") and not (method in _SETS and parsed):
        return None
    return variant
