# SPDX-License-Identifier: Apache-2.0
"""The computation that the command line describes, in the words of either guide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from cocos.errors import ConfigError, UsageError
from cocos.wire.manifest.computation import Computation, make_source, parse_pin
from cocos.wire.manifest.parts import OCI_IMAGE, AgentConfig, Algorithm, Dataset

# What Go's strconv.ParseBool accepts.
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@dataclass(frozen=True, slots=True)
class Order:
    """Flags of ``cvms-test`` as they were written; lists are separated by commas.

    Attributes:
        algo_type: ``oci-image``: the source's type, as the first guide means it; else how
            the algorithm is run, as the present one does.
        kbs_url: For resources without their own; empty: the KBS of the CVM.
    """

    id: str = "1"
    name: str = "test"
    description: str = ""
    attested_tls: str = "false"
    client_ca_file: str = ""
    agent_log_level: str = ""
    kbs_url: str = ""
    algo_type: str = ""
    algo_source_type: str = ""
    algo_source_url: str = ""
    algo_kbs_path: str = ""
    algo_kbs_url: str = ""
    algo_args: str = ""
    algo_hash: str = ""
    algo_path: str = ""
    data_paths: str = ""
    dataset_type: str = ""
    dataset_source_urls: Sequence[str] = ()
    dataset_kbs_paths: Sequence[str] = ()
    dataset_kbs_urls: Sequence[str] = ()
    dataset_hashes: Sequence[str] = ()
    dataset_decompress: str = ""


def consumer_key(pem: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a public key in PEM.

    Raises:
        ConfigError: it is none.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            "the result consumer's public key is not in PEM", hint="make one: cocos-cli keys"
        ) from error
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def from_manifest(computation: Computation, key: bytes | None) -> Computation:
    """Return a computation read from a file, with ``key`` as consumer if it has none.

    Raises:
        UsageError: nobody could open the result.
    """
    if computation.result_consumers:
        return computation
    if key is None:
        raise UsageError(
            "nobody could open the result: the manifest lists no result_consumers",
            hint="-public-key FILE names one",
        )
    return replace(computation, result_consumers=(key,))


def from_flags(order: Order, key: bytes | None) -> Computation:
    """Return the computation that flags describe.

    Raises:
        UsageError: flags that contradict each other, are missing, or need what is not there.
        FormatError: the computation is refused; all problems are listed.
    """
    if parse_bool(order.attested_tls, "-attested-tls-bool"):
        raise UsageError(
            "attested TLS is not available yet",
            hint="-attested-tls-bool false; results are sealed to their consumer anyway",
        )
    if order.algo_path or order.data_paths:
        raise UsageError(
            "uploads of local files are not available yet",
            hint="put them into images: -algo-source-url, -dataset-source-urls",
        )
    if not order.algo_source_url:
        raise UsageError("-algo-source-url is missing", hint="or give a whole -manifest FILE")
    if key is None:
        raise UsageError("-public-key is missing: nobody could open the result")
    kind, source_type = order.algo_type or OCI_IMAGE, order.algo_source_type
    algorithm = Algorithm(
        make_source(
            source_type or OCI_IMAGE,
            order.algo_source_url,
            order.algo_kbs_path,
            encrypted=bool(order.algo_kbs_path),
            kbs=order.algo_kbs_url or order.kbs_url,
        ),
        parse_pin(order.algo_hash),
        kind,
        tuple(order.algo_args.split(",")) if order.algo_args else (),
        key,
    )
    config = AgentConfig(client_ca_file=order.client_ca_file, log_level=order.agent_log_level)
    return Computation(
        order.id, algorithm, order.name, order.description, _datasets(order, key), (key,), config
    )


def parse_bool(text: str, flag: str) -> bool:
    """Parse a truth value as Go does.

    Raises:
        UsageError: another word.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UsageError(f"{flag}: {text[:50]!r} is neither true nor false")


def _datasets(order: Order, key: bytes) -> tuple[Dataset, ...]:
    urls = _split(order.dataset_source_urls)
    count = len(urls)
    if not all(urls):
        raise UsageError("-dataset-source-urls has an empty entry")
    paths = _per_dataset("-dataset-keys", _split(order.dataset_kbs_paths), count)
    kbs_urls = _per_dataset("-dataset-kbs", _split(order.dataset_kbs_urls), count)
    hashes = _per_dataset("-dataset-hash", _split(order.dataset_hashes), count)
    types = _split([order.dataset_type])
    if len(types) == 1:
        types *= count
    types = _per_dataset("-dataset-type", types, count)
    unpack = _per_dataset("-dataset-decompress", _split([order.dataset_decompress]), count)
    return tuple(
        Dataset(
            make_source(
                type_ or OCI_IMAGE, url, path, encrypted=bool(path), kbs=kbs or order.kbs_url
            ),
            parse_pin(pin),
            decompress=parse_bool(word or "false", "-dataset-decompress"),
            user_key=key,
        )
        for url, path, kbs, pin, type_, word in zip(
            urls, paths, kbs_urls, hashes, types, unpack, strict=True
        )
    )


def _split(values: Sequence[str]) -> list[str]:
    """Join the values of a flag that may be repeated, each a list separated by commas."""
    return [entry.strip() for value in values if value for entry in value.split(",")]


def _per_dataset(flag: str, values: list[str], count: int) -> list[str]:
    if not values:
        return [""] * count
    if len(values) != count:
        raise UsageError(f"{flag} has {len(values)} entries for {count} datasets")
    return values
