# SPDX-License-Identifier: Apache-2.0
"""Errors in the words of Trustee's KBS: its ``type``, and a ``detail`` that begins like its own.

Clients look for Trustee's texts; what is ours comes after the colon.
"""

from collections.abc import Mapping
from typing import Final

from cocos.errors import AccessDeniedError, AuthenticationError, CocosError, EvidenceError
from cocos.transport.web import Failed
from cocos.wire.kbs import PROBLEM_TYPE

_GUEST: Final[Mapping[type[CocosError], str]] = {
    AuthenticationError: "TokenNotFound",
    EvidenceError: "TokenVerifierError",
    AccessDeniedError: "PolicyDeny",
}
_ADMIN: Final[Mapping[type[CocosError], str]] = {
    AuthenticationError: "AdminAuthAccess",
    AccessDeniedError: "AdminAuthAccess",
}
_ENDPOINTS: Final = {
    "auth": "AttestationError",
    "attest": "AttestationError",
    "attestation-policy": "AttestationError",
    "denial": "PluginInternalError",
    "reference-value": "RvpsError",
    "resource": "PluginInternalError",
    "resource-policy": "ParsePolicyError",
}
_WORDS: Final = {
    "AdminAuthAccess": "admin access denied for endpoint {endpoint}",
    "ParsePolicyError": "Failed to parse policy",
    "PluginInternalError": "Plugin internal error",
    "PluginNotFound": "Plugin {endpoint} not found",
    "PolicyDeny": "Access denied by policy",
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
        prefix: Path that all routes begin with, without a slash at the end.
    """
    endpoint, _, rest = failed.path.removeprefix(f"{prefix}/").partition("/")
    variant = _variant(failed, endpoint, rest)
    words = _WORDS.get(variant) or _STEPS.get(endpoint, "KBS error")
    words, message = words.format(endpoint=endpoint), failed.error.message
    detail = message if message.startswith(words) else f"{words}: {message}"
    return f"{PROBLEM_TYPE}{variant}", detail


def _variant(failed: Failed, endpoint: str, rest: str) -> str:
    if endpoint in {"auth", "attest"}:
        by_error: Mapping[type[CocosError], str] = {}
    elif endpoint == "resource" and rest and failed.method in {"GET", "HEAD"}:
        by_error = _GUEST
    else:
        by_error = _ADMIN
    return by_error.get(type(failed.error)) or _ENDPOINTS.get(endpoint, "PluginNotFound")
