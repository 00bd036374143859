# SPDX-License-Identifier: Apache-2.0
"""Annotated evidence: what a policy sees, from claims, runtime data and init data."""

import datetime as dt
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.wire import env_file, toml
from cocos.wire.aa_kbc_params import AaKbcParams, of_command_line
from cocos.wire.init_data import InitDocument
from cocos.wire.kbs.address import KbsAddress, claims_of
from cocos.wire.kbs.protocol import InitData, Tee
from cocos.wire.vm_init_data import kbs_of, kbs_of_data_hub

_TOML_FILES: Final = ("aa.toml", "cdh.toml")
_GUEST_POLICY: Final = "policy.rego"
_POLICY_DATA: Final = "policy_data := {"
_MAX_DEPTH: Final = 32
_PRIVATE: Final = re.compile(r"-key\.pem\Z|secret|password|token", re.IGNORECASE)
_ASSIGNMENT: Final = re.compile(r"^([^=\s]+)=(.*)$", re.MULTILINE)


def parse_init_data(shown: InitData) -> InitDocument:
    """Parse the init data that a guest showed.

    Raises:
        EvidenceError: not the document that it should be.
    """
    try:
        return InitDocument.parse(shown.body.encode("utf-8"), shown.format)
    except (FormatError, UnicodeEncodeError) as error:
        raise EvidenceError(
            f"the init data is malformed: {error}", findings=(Finding("init_data", str(error)),)
        ) from error


def compose(
    tee: Tee,
    claims: Mapping[str, Any],
    runtime_data: JsonObject | None,
    init_data: InitDocument | None,
    insecure: Sequence[str] = (),
) -> JsonObject:
    """Return a policy's input.

    Args:
        tee: Whose claims they are.
        claims: Of its verifier.
        runtime_data: What the evidence was bound to, if it was a digest.
        init_data: In clear, if the guest showed it.
        insecure: What was taken although it proves nothing; the token names the same.
    """
    own = {name: value for name, value in claims.items() if name not in _SHARED}
    annotated: JsonObject = {tee.value: own, "insecure": list(insecure)}
    if "report_data" in claims:
        annotated["report_data"] = claims["report_data"]
        annotated["runtime_data_claims"] = runtime_data
    if "init_data" in claims:
        annotated["init_data"] = claims["init_data"]
        annotated["init_data_claims"] = None if init_data is None else init_claims(init_data)
    # Neither logs nor init data are signed: who is on the way can leave them out.
    hidden = init_data is None and bool(str(claims.get("init_data") or "").strip("0"))
    known = "computations" in claims and not hidden
    line = str(claims.get("cmdline", ""))
    annotated["kbs"] = kbs_claims(
        claims.get("computations", ()), init_data, command_line=line, all_known=known
    )
    return annotated


def kbs_claims(
    computations: Sequence[JsonObject],
    init_data: InitDocument | None,
    *,
    command_line: str,
    all_known: bool,
) -> JsonObject:
    """Return which KBSs a machine was told to get keys from, and what it knows them by.

    Args:
        computations: Claims; ``kbs`` of each has the addresses in its manifest, where empty
            means the KBS of the init data.
        init_data: In clear, if the guest showed it.
        command_line: The kernel's, which names a KBS to programs of guests that are not ours.
        all_known: Whether these are all that there is; else there may be KBSs that nobody sees.

    Returns:
        ``named``: every KBS, once, that of the init data first (:meth:`KbsAddress.claim`);
        ``by``: what they are known by; ``authenticated``: whether all are known by something.
    """
    told = [] if init_data is None else list(_configured(init_data))
    own = told[0] if told else None
    told += _on_command_line(command_line, own)
    for computation in computations:
        told += [_named(text, own) for text in computation["kbs"]]
    return claims_of(told if all_known else [*told, None])


def _named(text: str, own: KbsAddress | None) -> KbsAddress | None:
    try:
        return KbsAddress.parse(text).trusted_like(own) if text else own
    except FormatError:  # no agent of ours measured that
        return None


def _on_command_line(text: str, own: KbsAddress | None) -> list[KbsAddress | None]:
    try:
        params = of_command_line(text)
        found = None if params is None else AaKbcParams.parse(params).kbs
        return [] if found is None else [found.trusted_like(own)]
    except FormatError:
        return [None]


def _configured(document: InitDocument) -> Iterator[KbsAddress | None]:
    """Yield the KBSs that init data names, by the code that guests read it with."""
    for name, read in (("aa.toml", kbs_of), ("cdh.toml", kbs_of_data_hub)):
        if name not in document.data:
            continue
        try:
            found = read(toml.loads(document.data[name]))
        except (FormatError, ValueError):
            yield None  # nobody knows what a guest makes of it
        else:
            if found is not None:
                yield found


_SHARED: Final = {"report_data", "init_data"}


def init_claims(document: InitDocument) -> JsonObject:
    """Return the files of init data, with those that policies look into as objects.

    ``aa.toml`` and ``cdh.toml`` become the equivalent objects if they parse, and so do files of
    variables in the form that our guests take (:mod:`cocos.wire.env_file`). A guest policy
    that ends in ``policy_data := {…}`` gives way to ``agent_policy_claims``, that object.
    Of keys, passwords and the like only the digest is there: tokens are shown around.
    """
    claims: JsonObject = {name: _veiled(name, text) for name, text in document.data.items()}
    for name in _TOML_FILES:
        if name in claims:
            claims[name] = _veiled(name, _toml(claims[name]))
    _, marker, rest = claims.get(_GUEST_POLICY, "").partition(_POLICY_DATA)
    if marker:
        try:
            data = _plain(json.loads("{" + rest), _MAX_DEPTH)
        except (ValueError, RecursionError):
            return claims  # stays as text
        del claims[_GUEST_POLICY]
        claims["agent_policy_claims"] = data
    return claims


def _veiled(name: str, value: Any) -> Any:
    """Return a member with the digests of its secrets in their places."""
    if isinstance(value, dict):
        return {inner: _veiled(inner, member) for inner, member in value.items()}
    if isinstance(value, list):
        return [_veiled(name, member) for member in value]
    if not isinstance(value, str):
        return value
    if _PRIVATE.search(name):
        return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"
    if name.endswith(".env"):
        return _variables(name, value)
    return value


def _variables(name: str, text: str) -> Any:
    try:
        return _veiled(name, env_file.loads(text))
    except FormatError:  # of somebody else's guest
        return _ASSIGNMENT.sub(lambda line: f"{line[1]}={_veiled(line[1], line[2])}", text)


def _toml(text: str) -> Any:
    try:
        return _plain(toml.loads(text), _MAX_DEPTH)
    except (FormatError, ValueError):
        return text


def _plain(value: Any, room: int) -> Any:
    """Return ``value`` as JSON that policies and tokens can carry; dates become text.

    Raises:
        ValueError: nested too deep, or a number that JSON does not have.
    """
    if room == 0:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        return {name: _plain(member, room - 1) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member, room - 1) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("not a JSON number")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value
