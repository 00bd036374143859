# SPDX-License-Identifier: Apache-2.0
"""Resource policies in an owner's words: who may get a key, written down as Rego.

What an owner says is compared member by member with the claims of a TPM's evidence. A
computation must be the only one since boot: a list of one whose members are equal, so that
one that lacks a member is another one, not none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.policy import defaults
from cocos.wire import json
from cocos.wire.manifest.computation import Computation, arguments_digest, environment_digest
from cocos.wire.manifest.parts import OCI_IMAGE, AgentConfig

Members: TypeAlias = Mapping[str, Sequence[str | Sequence[str]]]
"""Members of a computation's claims → the values that are accepted of each."""
Registers: TypeAlias = Mapping[str, Sequence[str]]
"""PCR of an image, such as ``pcr11`` → its accepted values, lower-case hex."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REGISTER: Final = re.compile(r"tpm_(pcr(?:0\d|1[0-5]))", re.ASCII)
_DATASETS: Final = 8
"""Of so many a program's arguments are recognised as none; their number is part of them."""
_KERNEL_IMAGE: Final = "pcr11"
_COMMENTS: Final = re.compile(r"\A(?:#[ -~]*\n)*")
_PIN: Final = "put its hash into the manifest: cocos-cli checksum docker://… prints it"


@dataclass(frozen=True, slots=True)
class Terms:
    """To whom an owner gives a key.

    Attributes:
        images: Machines of one of these images; empty: of any that the KBS affirms.
        computations: One of these computations, and nothing else since boot; empty: any.
    """

    images: tuple[Registers, ...] = ()
    computations: tuple[Members, ...] = ()


def only_computation(computation: Computation) -> Members:
    """Return what is claimed of one computation alone.

    Raises:
        FormatError: its manifest leaves an image to the registry.
    """
    images = [("its algorithm", computation.algorithm.hash)]
    images += [(f"dataset {n}", each.hash) for n, each in enumerate(computation.datasets)]
    for name, pin in images:
        if not pin:
            raise FormatError(
                f"the manifest does not say which image {name} is: a registry would choose",
                hint=_PIN,
            )
    event = computation.event(
        computation.algorithm.hash.hex(),
        [each.hash.hex() for each in computation.datasets],
        computation.result_consumers,
    )
    return {name: [value] for name, value in event.claims().items()}


def only_algorithm(digest: str) -> Members:
    """Return what is claimed of whatever runs one program as its image says, and no other way.

    The manifest gives it no arguments, of which an interpreter takes orders, and does not
    show its output to others.

    Args:
        digest: Of its image's config, hex, with or without ``sha256:``.

    Raises:
        FormatError: it is none.
    """
    return {
        "algorithm_digest": [_digest(digest.removeprefix("sha256:").lower(), "the digest")],
        "arguments_digest": [arguments_digest((), [""] * n).hex() for n in range(_DATASETS + 1)],
        "environment_digest": [environment_digest(OCI_IMAGE, AgentConfig()).hex()],
    }


def only_image(values: JsonObject) -> Registers:
    """Return what a TPM claims of machines of one image.

    Args:
        values: Its reference values: name → accepted values. Those of other kinds of
            evidence are left out; such machines are not accepted.

    Raises:
        FormatError: they do not tell one image from another, or are no digests.
    """
    found: dict[str, Sequence[str]] = {}
    for name, accepted in sorted(values.items()):
        match = _REGISTER.fullmatch(name)
        if match is None:
            continue
        if not isinstance(accepted, list) or not accepted:
            raise FormatError(f"the reference value {name} is not a list of accepted values")
        found[match[1]] = [_digest(each, f"the reference value {name}") for each in accepted]
    if _KERNEL_IMAGE not in found:
        raise FormatError(f"the reference values have no tpm_{_KERNEL_IMAGE}, which is the image")
    return found


def write(terms: Terms, *, said: str) -> str:
    """Write the policy that holds an owner to what they said.

    Args:
        terms: What it is.
        said: How, for people: a command. Any text.
    """
    head = f"# Made by: {_one_line(said)}\n# To change it, make it again.\n"
    if not terms.images and not terms.computations:
        return head + _without_head(defaults.text(defaults.RESOURCE))
    rules, parts = [], []
    if terms.images:
        rules.append("image")
        parts += [_alternatives("image", map(_image, terms.images)), _image_finding(terms.images)]
    if terms.computations:
        rules.append("computation")
        parts.append(_alternatives("computation", map(_computation, terms.computations)))
        parts.append(_computation_finding(terms.computations))
    asked = "".join(f"\t{rule}\n" for rule in rules)
    return "\n".join([head + _ALLOW.format(asked=asked), *parts])


def same(one: str, other: str) -> bool:
    """Tell whether two policies differ at most in the comments that they begin with."""
    return _without_head(one) == _without_head(other)


_ALLOW: Final = """
package policy

import rego.v1

default allow := false

allow if {{
	count(input.submods) == 1
	input.submods.cpu0["ear.status"] == "affirming"
{asked}}}

tpm := input.submods.cpu0["ear.veraison.annotated-evidence"].tpm
"""


def _alternatives(rule: str, bodies: Iterable[str]) -> str:
    return "\n".join(
        [f"default {rule} := false\n", *(f"{rule} if {{\n{body}}}\n" for body in bodies)]
    )


def _image(registers: Registers) -> str:
    return "".join(f"\ttpm.{pcr} in {_rego(values)}\n" for pcr, values in registers.items())


def _computation(members: Members) -> str:
    lines = ["\tcount(tpm.computations) == 1\n"]
    lines += [f"\ttpm.computations[0].{name} in {_rego(v)}\n" for name, v in members.items()]
    return "".join(lines)


def _image_finding(images: Sequence[Registers]) -> str:
    names = sorted({pcr for registers in images for pcr in registers})
    return _finding(
        "image",
        "tpm.image",
        "not a machine of an image that the owner of this key accepts",
        f"{{pcr: tpm[pcr] | some pcr in {_rego(names)}}}",
        [dict(registers) for registers in images],
    )


def _computation_finding(computations: Sequence[Members]) -> str:
    return _finding(
        "computation",
        "tpm.computations",
        "not the computation that the owner of this key accepts, or not it alone",
        "[ran | some ran in tpm.computations]",
        [dict(members) for members in computations],
    )


def _finding(rule: str, check: str, problem: str, actual: str, expected: object) -> str:
    return (
        "findings contains finding if {\n"
        f"\tnot {rule}\n"
        "\tfinding := {\n"
        f'\t\t"check": {_rego(check)},\n'
        f'\t\t"problem": {_rego(problem)},\n'
        f'\t\t"actual": {actual},\n'
        f'\t\t"expected": {_rego(expected)},\n'
        "\t}\n"
        "}\n"
    )


def _rego(value: object) -> str:
    """Return a value as Rego writes it: JSON is that."""
    return json.encode(value).decode("ascii")


def _digest(value: object, what: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise FormatError(f"{what} is not a SHA-256 digest, 64 lower-case hex digits")
    return value


def _one_line(text: str) -> str:
    """Return text that stays in its comment: a newline would end that."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)


def _without_head(text: str) -> str:
    """Cut the comments at a text's beginning, and no more: what ends a line is the engine's."""
    return _COMMENTS.sub("", text)
