# SPDX-License-Identifier: Apache-2.0
"""Concise Reference Integrity Manifests (draft-ietf-rats-corim): reference values of makers.

Of a manifest the reference triples of its CoMID tags are read; names are those that Trustee's
RVPS makes of them.
"""

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cocos.errors import FormatError
from cocos.evidence import cbor
from cocos.evidence.cose import SIGN1, Sign1

_WHAT: Final = "the CoRIM"
_WRAPPERS: Final = {500, 501, 502}
_COMID: Final = 506
_TIME: Final = 1
_UUID: Final = 37
_RAW_BYTES: Final = 560
_SINGLE: Final = {1, 2}  # instance and group of an environment
_META: Final = 8  # header of a signed one
_LATEST: Final = 253402300799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class Corim:
    """A manifest.

    Attributes:
        values: Name → hex digests as a list, or hex of raw bytes as text.
        begin: Not valid before; None without a beginning.
        end: Not valid from then on; None without an end.
    """

    values: dict[str, list[str] | str]
    begin: dt.datetime | None
    end: dt.datetime | None

    @classmethod
    def parse(cls, data: bytes, signed: Sign1 | None = None) -> "Corim":
        """Parse a manifest, or the payload of a signed one.

        Args:
            data: CBOR.
            signed: What it is the payload of; also its own validity counts.

        Raises:
            FormatError: it is none.
        """
        manifest = _map(_unwrapped(cbor.loads(data, _WHAT)), _WHAT)
        values: dict[str, list[str] | str] = {}
        for tag in _list(manifest.get(1), "its tags"):
            if isinstance(tag, cbor.Tagged) and tag.tag == _COMID:
                _collect(values, tag.value)
            elif isinstance(tag, bytes):  # as older tools wrote them
                _collect(values, tag)
        spans = [manifest.get(4), _meta(signed)]
        begins, ends = zip(*map(_validity, spans), strict=True)
        return cls(
            values,
            max((each for each in begins if each), default=None),
            min((each for each in ends if each), default=None),
        )


def signed_part(data: bytes) -> Sign1 | None:
    """Return the signature around a manifest; None for one that nobody signed.

    Raises:
        FormatError: not CBOR, or a signature that is none.
    """
    item = _unwrapped(cbor.loads(data, _WHAT))
    if isinstance(item, cbor.Tagged) and item.tag == SIGN1:
        return Sign1.of(item, _WHAT)
    return None


def _unwrapped(item: Any) -> Any:
    while isinstance(item, cbor.Tagged) and item.tag in _WRAPPERS:
        item = item.value
    return item


def _meta(signed: Sign1 | None) -> Any:
    meta = None if signed is None else signed.headers.get(_META)
    if meta is None:
        return None
    what = "the CoRIM's header"
    return _map(cbor.loads(meta, what) if isinstance(meta, bytes) else meta, what).get(1)


def _validity(span: Any) -> tuple[dt.datetime | None, dt.datetime | None]:
    if span is None:
        return None, None
    found = _map(span, "its validity")
    return _time(found.get(0)), _time(found.get(1))


def _time(value: Any) -> dt.datetime | None:
    if value is None:
        return None
    seconds = value.value if isinstance(value, cbor.Tagged) and value.tag == _TIME else value
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds <= _LATEST:
        raise FormatError("the CoRIM's validity is not in whole seconds since 1970")
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _collect(values: dict[str, list[str] | str], data: Any) -> None:
    comid = _map(cbor.loads(data, "a CoMID") if isinstance(data, bytes) else data, "a CoMID")
    triples = _map(comid.get(4), "its triples")
    for triple in _list(triples.get(0, ()), "its reference triples"):
        environment, claims = _pair(triple)
        found = _map(environment, "an environment")
        if found.keys() & _SINGLE:  # without them it would hold for all others of the class
            raise FormatError("a CoRIM with values of single devices or groups is not understood")
        prefix = _class(found)
        for claim in _list(claims, "its measurements"):
            for name, value in _measured(_map(claim, "a measurement"), prefix):
                _add(values, name, value)


def _add(values: dict[str, list[str] | str], name: str, value: list[str] | str) -> None:
    there = values.setdefault(name, value)
    if isinstance(there, list) and isinstance(value, list):
        there += [each for each in value if each not in there]
    elif there != value:
        raise FormatError(f"the CoRIM has two values of {name[:80]!r}")


def _class(environment: dict[Any, Any]) -> list[str]:
    found = _map(environment.get(0, {}), "a class")
    return [_text(found[key], "a class") for key in (1, 2) if found.get(key) is not None]


def _measured(claim: dict[Any, Any], prefix: list[str]) -> Iterator[tuple[str, list[str] | str]]:
    value = _map(claim.get(1), "a measured value")
    parts = [*prefix, *_key(claim.get(0))]
    parts += [_text(value[key], "a name") for key in (11, 8) if value.get(key) is not None]
    if value.get(2) is not None:
        digests = [_pair(each)[1] for each in _list(value[2], "digests")]
        yield "/".join([*parts, "digests"]), [_bytes(each).hex() for each in digests]
    raw = value.get(4)
    if isinstance(raw, cbor.Tagged) and raw.tag == _RAW_BYTES:
        if value.get(5) is not None:
            raise FormatError("a CoRIM with masks of raw values is not understood")
        yield "/".join([*parts, "raw_bytes"]), _bytes(raw.value).hex()


def _key(key: Any) -> list[str]:
    if isinstance(key, str):
        return [key]
    if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
        return [f"claim{key}"]
    if isinstance(key, cbor.Tagged) and key.tag == _UUID:
        data = _bytes(key.value)
        if len(data) != 16:  # noqa: PLR2004 - of a UUID
            raise FormatError("the CoRIM has a UUID that is none")
        return [str(uuid.UUID(bytes=data))]
    if key is None:
        return []
    raise FormatError("the CoRIM has a key of a measurement that is not understood")


def _map(item: Any, what: str) -> dict[Any, Any]:
    if not isinstance(item, dict):
        raise FormatError(f"the CoRIM is malformed: {what} is no map")
    return item


def _list(item: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(item, tuple):
        raise FormatError(f"the CoRIM is malformed: {what} are no list")
    return item


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, tuple) or len(item) != 2:  # noqa: PLR2004
        raise FormatError("the CoRIM is malformed: two things belong together")
    return item


def _text(item: Any, what: str) -> str:
    if not isinstance(item, str):
        raise FormatError(f"the CoRIM is malformed: {what} is no text")
    return item


def _bytes(item: Any) -> bytes:
    if not isinstance(item, bytes):
        raise FormatError("the CoRIM is malformed: a value is no bytes")
    return item
