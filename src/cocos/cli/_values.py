# SPDX-License-Identifier: Apache-2.0
"""What stands on a command line is looked at before anything is done.

For all programs alike: a value that its option cannot have ends with 2, a file or folder
that is not there with 66. What configuration files say is their reader's to judge.
"""

import contextlib
import datetime as dt
import logging
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from cocos.errors import CallerError, FormatError, NotFoundError, UsageError

MADE: Final = frozenset(
    {
        *("output", "output_dir", "results", "results_dir", "keys", "state_folder"),
        *("work_folder", "keys folder", "export file"),
        *("fetch collateral", "list collateral", "export collateral", "import collateral"),
    }
)
"""Parameters whose file or folder need not be there; with its command where others need it."""


def _level(text: str) -> object:
    if text.upper() not in logging.getLevelNamesMapping():
        raise UsageError("no log level", hint="debug, info, warning or error")
    return text


def _loaded(module: str, name: str) -> Any:
    """Return a parser of ours; most programs have no value for it and need not load it."""
    return attrgetter(name)(import_module(f"cocos.{module}"))


def _by(module: str, name: str) -> Callable[[str], object]:
    def parse(text: str) -> object:
        return _loaded(module, name)(text)  # now, not when the table is made

    return parse


_image: Final = _by("wire.oci", "Reference.parse")
_kbs: Final = _by("wire.kbs.address", "KbsAddress.parse")
_local: Final = _by("transport.loopback", "local_address")
_path: Final = _by("wire.kbs.protocol", "ResourcePath.parse")
_uri: Final = _by("wire.kbs.protocol", "ResourceUri.parse")


def _key(text: str) -> object:
    return _loaded("wire.kbs.protocol", "ResourcePath.parse")(text.removeprefix("kbs:///"))


def _resource(text: str) -> object:
    if "://" in text:
        return _uri(text)
    return _key(text.lstrip("/"))


def _subject(text: str) -> object:
    return Path(text).exists() or _image(text)


def _server(text: str) -> object:
    return _loaded("wire.address", "parse_address")(text, what="a server", default_port=1)


def _kbc(text: str) -> object:
    if text.startswith(("http://", "https://")):
        return _kbs(text)
    return _loaded("wire.aa_kbc_params", "AaKbcParams.parse")(text)


def _base64(text: str) -> object:
    return _loaded("wire.json", "b64decode")(text, "the digest")


def _algorithm(text: str) -> object:
    return _loaded("wire.oci", "parse_digest")(f"sha256:{text.removeprefix('sha256:')}")


def _pin(text: str) -> object:
    with contextlib.suppress(FormatError):
        if len(_loaded("wire.manifest.computation", "parse_pin")(text)) in {0, 32}:
            return text
    raise UsageError(f"{text[:80]!r} is no SHA-256", hint="64 hex digits")


def _backend(text: str) -> object:
    known = _loaded("manager.backends", "BACKENDS")
    if text not in known:
        raise UsageError("no such backend", hint=f"one of {', '.join(known)}")
    return text


def _of_schemes(*schemes: str) -> Callable[[str], object]:
    def parse(text: str) -> object:
        scheme, colon, _ = text.partition("://")
        if colon and scheme not in schemes:
            raise UsageError(f"{scheme}:// is not known here", hint=f"{schemes[0]}://…")
        return text

    return parse


def _several(parse: Callable[[str], object]) -> Callable[[str], object]:
    def parse_each(text: str) -> object:
        return [parse(part) for part in map(str.strip, text.split(",")) if part]

    return parse_each


def _denial(text: str) -> object:
    if not _ID.fullmatch(text):
        raise UsageError("no id of a denial", hint="16 hex digits, as the refused guest was told")
    return text


def _word(text: str) -> object:
    if not text.isprintable() or " " in text:
        raise UsageError("it has blanks or control characters")
    return text


def _hex(text: str) -> object:
    return bytes.fromhex(text)


def _time(text: str) -> object:
    return dt.datetime.fromisoformat(text)


def _duration(text: str) -> object:
    return _loaded("wire.duration", "parse_duration")(text, "the time")


_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)

GRAMMAR: Final[dict[str, Callable[[str], object]]] = {
    "aa": _local,
    "aa_addr": _local,
    "aa_kbs_params": _kbc,
    "algo_hash": _pin,
    "algo_kbs_path": _path,
    "algo_kbs_url": _kbs,
    "amd_url": _server,
    "at": _time,
    "aws_access_key_id": _word,
    "aws_endpoint_url": _word,
    "aws_region": _word,
    "backend": _backend,
    "ca_url": _word,
    "cdh_addr": _local,
    "cvms_url": _server,
    "dataset_hashes": _several(_pin),
    "dataset_kbs_paths": _several(_path),
    "dataset_kbs_urls": _several(_kbs),
    "denial": _denial,
    "destination": _image,
    "envelope kid": _uri,
    "fingerprint": _by("evidence.endorsement", "parse_fingerprint"),
    "for_algorithm": _algorithm,
    "http_socket": _by("transport.http_server", "split_address"),
    "initdata_digest": _base64,
    "intel_url": _server,
    "kbs": _kbs,
    "kbs_url": _kbs,
    "key": _key,
    "keyprovider": _server,
    "log_level": _level,
    "manager_url": _server,
    "path": _resource,
    "registry": _server,
    "report_data": _hex,
    "verify init_data": _hex,
    "registry_credentials": _uri,
    "session_storage": _of_schemes("redis", "rediss", "unix"),
    "source": _image,
    "storage": _of_schemes("sqlite", "postgresql", "postgres"),
    "storage_key": _by("cli.kbs.storage", "root_key_source"),
    "subject": _subject,
    "ttl": _duration,
    "url": _kbs,
    "vault kid": _uri,
    "vault name": _uri,
}
"""Parameters that are no files, and what reads their text; a name means the same everywhere."""


def install(command: Any) -> None:
    """Have every parameter of a program, whose class Typer shows to nobody, looked at.

    What nobody gave is not: an empty default stands for nothing.
    """
    for each in _commands(command):
        for parameter in each.params:
            kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
            if kind in {Path, list[Path]}:
                if not MADE & {parameter.name, f"{each.name} {parameter.name}"}:
                    parameter.callback = _before(parameter.callback, _there)
            elif kind in {str, list[str]}:
                parse = GRAMMAR.get(f"{each.name} {parameter.name}", GRAMMAR.get(parameter.name))
                if parse is not None:
                    parameter.callback = _before(parameter.callback, _parsed(parse))


def _commands(command: Any) -> Iterator[Any]:
    yield command
    for child in getattr(command, "commands", {}).values():
        yield from _commands(child)


Check = Callable[[str, Any], object]
"""Gets the parameter's name for people, and one value of it."""


def _before(then: Callable[..., Any] | None, check: Check) -> Callable[..., Any]:
    def callback(context: Any, parameter: Any, value: Any) -> Any:
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and (each or parameter.default != ""):  # "" may mean none
                check(_name(parameter), each)
        return value if then is None else then(context, parameter, value)

    return callback


def _name(parameter: Any) -> str:
    """Return what people know it by: the longest spelling of an option."""
    return str(max(parameter.opts, key=len))


def _there(name: str, path: Path) -> None:
    if str(path) != "-" and not path.exists():
        raise NotFoundError(f"{name}: {path} is not there")


def _parsed(parse: Callable[[str], object]) -> Check:
    def check(name: str, text: str) -> None:
        try:
            parse(text)
        except CallerError as error:
            raise UsageError(f"{name}: {error.message}", hint=error.hint) from error
        except ValueError as error:
            raise UsageError(f"{name}: {error}") from error

    return check
