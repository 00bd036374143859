# SPDX-License-Identifier: Apache-2.0
"""What ``--help`` shows: one notation for placeholders and defaults, and an example at the end.

Placeholders are capital words, or the words that are possible: ``FILE``, ``rsa|ecdsa``. What
an option is without a value stands in one pair of brackets: ``[env var: …; default: …]``.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from cocos.cli._examples import EXAMPLES
from cocos.cli._names import shown

PLACEHOLDERS: Final = {
    **dict.fromkeys(("--output-dir", "--keys", "--work-folder", "--state-folder"), "FOLDER"),
    "--image-folder": "FOLDER",
    **dict.fromkeys(("--kbs", "--algo-kbs", "--session-storage"), "URL"),
    **dict.fromkeys(("--cvms-url", "--manager-url", "--ca-url", "--aws-endpoint-url"), "URL"),
    **dict.fromkeys(("--key", "--resource", "--algo-key"), "RESOURCE"),
    **dict.fromkeys(("--kid", "--registry-credentials"), "URI"),
    **dict.fromkeys(("--log-level", "--agent-log-level"), "LEVEL"),
    **dict.fromkeys(("--ttl", "--lifetime", "--agent-timeout"), "DURATION"),
    **dict.fromkeys(("--retry-seconds", "--lead"), "SECONDS"),
    **dict.fromkeys(("--grpc-port", "--http-port", "--port"), "PORT"),
    **dict.fromkeys(("--grpc-host", "--http-host", "--host"), "HOST"),
    **dict.fromkeys(("--role", "--issuer", "--audience", "--aws-region"), "NAME"),
    **dict.fromkeys(("--algo-type", "--algo-source-type", "--dataset-type"), "oci-image"),
    "--algo-source-url": "IMAGE",
    "--accelerator": "kvm|tcg|auto",
    "--algo-hash": "HEX",
    "--attestation": "builtin|none|URL",
    "--attestation-token-type": "CoCo",
    "--attested-tls-bool": "false",
    "--aws-access-key-id": "ID",
    "--dataset-hash": "HEX,…",
    "--dataset-kbs": "URL,…",
    "--dataset-keys": "RESOURCE,…",
    "--dataset-source-urls": "IMAGE,…",
    "--denial-status": "401|403",
    "--event": "EVENT",
    "--http-socket": "HOST:PORT",
    "--id": "ID",
    "--initdata-digest": "BASE64",
    "--memory": "SIZE",
    "--oldest-protocol": "0.1.1|0.2.0|0.4.0",
    "--prefix": "RESOURCE",
    "--socket": "ADDRESS",
    "--storage": "FOLDER|URL",
    "--storage-key": "SOURCE",
    "--timeout": "MINUTES",
    "--trusted-proxy": "NETWORK",
}
"""Options, by the name that help shows, whose placeholder is not that of their kind."""

_KINDS: Final = {Path: "FILE", int: "NUMBER", float: "NUMBER"}
_ENDS: Final = re.compile(r"(?:\s*\[[^\[\]]*\])+$")
_PARTS: Final = re.compile(r"; (?=env var: |default: |required$|\d+<=|x[<>])")
_ORDER: Final = ("env var: ", "default: ", "")


def is_bare(command: Any, words: Sequence[str]) -> bool:
    """Tell whether a line ends where one of several commands has to follow."""
    for word in words:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            return False
    return bool(getattr(command, "commands", {})) and not command.invoke_without_command


def install(command: Any, name: str) -> None:
    """Have a program's help speak so; Typer shows the class of commands to nobody."""
    if name in EXAMPLES:
        command.epilog = "\b\nExample:\n  " + EXAMPLES[name].replace("\n", "\n  ")
    for parameter in command.params:
        if not getattr(parameter, "is_flag", False):
            _place(parameter)
        parameter.get_help_record = _in_one_bracket(parameter.get_help_record)
    for word, child in getattr(command, "commands", {}).items():
        install(child, f"{name} {word}")


def _place(parameter: Any) -> None:
    option = parameter.param_type_name == "option"
    called = shown(parameter.opts)[-1] if option else parameter.name
    kind = parameter.type_descriptor.annotation
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if parameter.metavar is None:
        if called in PLACEHOLDERS:
            parameter.metavar = PLACEHOLDERS[called]
        elif parameter.type_descriptor.is_choice:
            parameter.metavar = parameter.display_type(None).strip("<>")
        elif not option:
            parameter.metavar = parameter.name.upper()
        else:
            parameter.metavar = _KINDS.get(kind, "TEXT")
    if not option:
        parameter.display_type_rich = lambda ctx: None  # noqa: ARG005 - its name says it


def _in_one_bracket(record: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def merged(context: Any) -> Any:
        found = record(context)
        if found is None:
            return None
        name, text = found
        ends = _ENDS.search(text)
        if ends is None:
            return found
        parts = [
            part for group in re.findall(r"\[([^\[\]]*)\]", ends[0]) for part in _PARTS.split(group)
        ]
        parts.sort(
            key=lambda part: next(i for i, each in enumerate(_ORDER) if part.startswith(each))
        )
        return name, f"{text[: ends.start()]}  [{'; '.join(parts)}]"

    return merged
