# SPDX-License-Identifier: Apache-2.0
"""The two JSON forms of a manifest, as shapes: what the members are called, nothing more.

The *guide form* has ``computation_id`` and one flat object per resource; the *original
form* has ``id`` and mirrors the protobuf message in snake_case. Which one a text is
shows in the name of its identifier.
"""

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from cocos.errors import FormatError
from cocos.wire.json import decode

Hash: typing.TypeAlias = str | list[int]
"""Hex text with an optional ``sha256:``, or an array of bytes; empty: not pinned."""


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kbs(_Shape, frozen=True):
    url: str = ""
    enabled: bool = False


class Source(_Shape, frozen=True):
    type: str = ""
    url: str = ""
    kbs_resource_path: str = ""
    encrypted: bool = False


class Consumer(_Shape, frozen=True):
    user_key: bytes


class AgentConfig(_Shape, frozen=True):
    port: str = ""
    cert_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    server_ca_file: str = ""
    log_level: str = ""
    attested_tls: bool = False


class Dataset(_Shape, frozen=True):
    source: Source
    hash: Hash = ""
    user_key: bytes = b""
    filename: str = ""
    decompress: bool = False
    kbs: Kbs | None = None


class Algorithm(_Shape, frozen=True):
    source: Source
    hash: Hash = ""
    user_key: bytes = b""
    algo_type: str = ""
    algo_args: tuple[str, ...] = ()
    kbs: Kbs | None = None


class Original(_Shape, frozen=True):
    """The form of the original agent's ``Computation``, with ``agent_config`` added."""

    id: str
    algorithm: Algorithm
    name: str = ""
    description: str = ""
    datasets: tuple[Dataset, ...] = ()
    result_consumers: tuple[Consumer, ...] = ()
    agent_config: AgentConfig = AgentConfig()


class GuideResource(_Shape, frozen=True):
    """What an algorithm and a dataset of the guide form have in common."""

    uri: str
    type: str = ""
    encrypted: bool = False
    kbs_resource_path: str = ""
    kbs_url: str | None = None
    hash: Hash = ""
    user_key: bytes = b""


class GuideAlgorithm(GuideResource, frozen=True):
    args: tuple[str, ...] = ()


class GuideDataset(GuideResource, frozen=True):
    filename: str = ""


class Guide(_Shape, frozen=True):
    """The form of the guide; ``kbs_url`` counts for resources without their own.

    A ``kbs_url`` of ``""`` means the KBS that the CVM was started with.
    """

    computation_id: str
    algorithm: GuideAlgorithm
    name: str = ""
    description: str = ""
    datasets: tuple[GuideDataset, ...] = ()
    kbs_url: str | None = None
    result_consumers: tuple[Consumer, ...] = ()
    agent_config: AgentConfig = AgentConfig()


def parse(data: bytes) -> Guide | Original:
    """Decode either form.

    Raises:
        FormatError: not JSON, of neither form, or with members that the form lacks; all
            of those are named.
    """
    what = "the manifest"
    members: dict[str, Any] = decode(data, dict[str, Any], what)
    shape = _form(members)
    unknown = list(_unknown(members, shape, ""))
    if unknown:
        raise FormatError(f"{what} has members that nobody knows: {', '.join(unknown[:20])}")
    result: Guide | Original = decode(data, shape, what)
    return result


def _form(members: dict[str, Any]) -> type[Guide | Original]:
    """Return the form by its identifier's name; without one, by what the algorithm is called."""
    if "computation_id" in members:
        return Guide
    if "id" in members:
        return Original
    algorithm = members.get("algorithm")
    original = isinstance(algorithm, dict) and "source" in algorithm
    missing = "id" if original else "computation_id"
    raise FormatError(f"the manifest has no {missing}, which names it and its result")


def _unknown(value: object, shape: Any, place: str) -> Iterator[str]:
    """Yield the paths of members that ``shape`` does not have."""
    if isinstance(shape, types.UnionType):
        shape = next((each for each in shape.__args__ if _is_shape(each)), None)
    if typing.get_origin(shape) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, typing.get_args(shape)[0], f"{place}[{index}]")
    elif _is_shape(shape) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(shape)}
        for name, member in value.items():
            path = f"{place}.{name}" if place else str(name)
            if name not in fields:
                yield path
            else:
                yield from _unknown(member, fields[name], path)


def _is_shape(shape: object) -> bool:
    return isinstance(shape, type) and issubclass(shape, _Shape)
