# SPDX-License-Identifier: Apache-2.0
"""What a manifest must be like, rule by rule; every violation is named, not only the first."""

import re
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from cocos.crypto import sealed
from cocos.errors import FormatError
from cocos.wire.kbs.address import KbsAddress
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.parts import OCI_IMAGE, AgentConfig, Algorithm, Dataset, Source
from cocos.wire.oci import Reference, other_transport

LOG_LEVELS = ("", "debug", "info", "warn", "warning", "error")

MAX_DATASETS = 64
MAX_ARGUMENT_BYTES = 128 * 2**10
MAX_NAME = 256
MAX_DESCRIPTION = 4096
MAX_URL = 2048

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_FILENAME = re.compile(r"[^/\x00-\x1f\x7f]{1,255}")


def identity(id_: str, name: str, description: str) -> Iterator[str]:
    """Yield what is wrong with the computation's id, name and description."""
    if not _ID.fullmatch(id_):
        yield "id: must be 1 to 128 letters, digits, '.', '_' or '-', and start with no sign"
    if len(name) > MAX_NAME:
        yield f"name: longer than {MAX_NAME} characters"
    if len(description) > MAX_DESCRIPTION:
        yield f"description: longer than {MAX_DESCRIPTION} characters"


def algorithm(program: Algorithm) -> Iterator[str]:
    """Yield what is wrong with the algorithm."""
    place = "algorithm"
    yield from _source(program.source, place)
    yield from _hash(program.hash, place)
    yield from _user_key(program.user_key, place)
    if program.kind != OCI_IMAGE:
        yield f"{place}.algo_type: {program.kind!r} is not available yet, only {OCI_IMAGE}"
    if any("\0" in argument for argument in program.args):
        yield f"{place}.algo_args: holds a NUL character"
    if sum(len(argument.encode()) + 1 for argument in program.args) > MAX_ARGUMENT_BYTES:
        yield f"{place}.algo_args: more than {MAX_ARGUMENT_BYTES} bytes"


def datasets(sets: tuple[Dataset, ...]) -> Iterator[str]:
    """Yield what is wrong with the datasets, each and together."""
    if len(sets) > MAX_DATASETS:
        yield f"datasets: more than {MAX_DATASETS}"
        return  # 4 MiB hold enough of them to keep us busy for an hour
    for index, dataset in enumerate(sets):
        yield from _dataset(dataset, f"datasets[{index}]")
    yield from _duplicates([each.filename for each in sets], "have the file name")
    yield from _duplicates([each.source.url for each in sets], "come from")


def _dataset(dataset: Dataset, place: str) -> Iterator[str]:
    yield from _source(dataset.source, place)
    yield from _hash(dataset.hash, place)
    yield from _user_key(dataset.user_key, place)
    if dataset.filename and (
        not _FILENAME.fullmatch(dataset.filename)
        or dataset.filename in {".", ".."}
        or len(dataset.filename.encode()) > 255  # noqa: PLR2004 - NAME_MAX
    ):
        yield f"{place}.filename: must be the name of a file, without a folder"
    if dataset.decompress:
        yield f"{place}.decompress: an image's files are laid out as they are"


def _source(source: Source, place: str) -> Iterator[str]:
    if not source.url:
        yield f"{place}: has no source URL"
    elif source.type != OCI_IMAGE:
        yield f"{place}: sources of type {source.type!r} are not available yet, only {OCI_IMAGE}"
    elif len(source.url) > MAX_URL or not _is_image(source.url):
        wanted = "at a registry, such as" if other_transport(source.url) else "such as"
        yield f"{place}: {source.url[:200]!r} is no image {wanted} docker://host:5000/name:tag"
    if source.encrypted and not source.key:
        yield f"{place}: is encrypted but names no kbs_resource_path"
    if source.encrypted and source.kbs is None:
        yield f"{place}: is encrypted but names no KBS (kbs_url, or kbs with enabled)"
    if source.key and not source.encrypted:
        yield f"{place}: names a kbs_resource_path but says that it is not encrypted"
    if source.key:
        try:
            ResourcePath.parse(source.key)
        except FormatError as error:
            yield f"{place}.kbs_resource_path: {error.message}"
    if source.kbs:
        yield from _kbs(source.kbs, place)


def _is_image(url: str) -> bool:
    try:
        reference = Reference.parse(url)
    except FormatError:
        return False
    # A comma would split skopeo's option.
    return "," not in url and (
        reference.transport == "docker"
        or (reference.name.startswith("/") and ".." not in reference.name.split("/"))
    )


def _kbs(text: str, place: str) -> Iterator[str]:
    try:
        address = KbsAddress.parse(text)
    except FormatError as error:
        yield f"{place}: no KBS address such as https://kbs.example:8080: {error.message}"
    else:
        if str(address) != text:
            yield f"{place}: the KBS address {text[:200]!r} is written as {str(address)[:200]!r}"


def _hash(value: bytes, place: str) -> Iterator[str]:
    if len(value) not in {0, 32}:
        yield f"{place}.hash: has {len(value)} bytes instead of 32"


def _user_key(der: bytes, place: str) -> Iterator[str]:
    if not der:
        return
    try:
        serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield f"{place}.user_key: is not a public key in DER"


def consumers(keys: tuple[bytes, ...]) -> Iterator[str]:
    """Yield what is wrong with the keys of the result consumers."""
    if len(keys) > sealed.MAX_RECIPIENTS:
        yield f"result_consumers: more than {sealed.MAX_RECIPIENTS}"
        return
    for index, key in enumerate(keys):
        try:
            sealed.check_recipient(key)
        except FormatError as error:
            hint = f" ({error.hint})" if error.hint else ""
            yield f"result_consumers[{index}]: {error.message}{hint}"
    if len(set(keys)) < len(keys):
        yield "result_consumers: the same key twice"


def agent_config(config: AgentConfig) -> Iterator[str]:
    """Yield what is wrong with the agent's settings."""
    if config.log_level.lower() not in LOG_LEVELS:
        yield f"agent_config.log_level: {config.log_level!r} is none of debug, info, warn, error"
    if config.attested_tls:
        yield "agent_config.attested_tls: not available yet; results are sealed to their consumers"


def _duplicates(values: list[str], relation: str) -> Iterator[str]:
    for value in sorted({each for each in values if each and values.count(each) > 1}):
        yield f"datasets: two {relation} {value[:200]!r}"
