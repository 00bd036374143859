# SPDX-License-Identifier: Apache-2.0
"""Options that say who may get a key, for every command that binds one; and the question."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cocos.cli import _common as common
from cocos.errors import FormatError, UsageError
from cocos.host.files import read_input
from cocos.policy import owners
from cocos.policy.owners import Terms
from cocos.wire import json
from cocos.wire.image_folder import REFERENCE_VALUES
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES, Computation

OPTIONS: Final = (
    "--for MANIFEST, --for-image FOLDER, --for-algorithm DIGEST, or --any-computation; "
    "docs/policies.md says what each is worth"
)

_IN_CLEAR: Final = (
    "a manifest has no result_consumers: only cocos-agent run, which leaves the result in clear, "
    "measures that; cvms-test -public-key would run another computation"
)

For = Annotated[
    list[Path] | None,
    typer.Option(
        "--for",
        metavar="MANIFEST",
        help="Only for this computation, alone on its machine; repeatable, to allow several.",
    ),
]
ForImage = Annotated[
    list[Path] | None,
    typer.Option(
        "--for-image",
        metavar="FOLDER",
        help="Only for machines of this VM image: the folder of cocos-cli image build; repeatable.",
    ),
]
ForAlgorithm = Annotated[
    list[str] | None,
    typer.Option(
        "--for-algorithm",
        metavar="DIGEST",
        help="Only for this program without arguments, whatever its data and whoever gets the "
        "result; cocos-cli checksum prints it; repeatable.",
    ),
]
AnyComputation = Annotated[
    bool,
    typer.Option("--any-computation", help="For whatever runs on a machine that the KBS trusts."),
]


@dataclass(frozen=True, slots=True)
class Word:
    """What an owner said about who may get a key; empty: nothing."""

    manifests: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    algorithms: tuple[str, ...] = ()
    any_computation: bool = False

    @classmethod
    def of(
        cls,
        manifests: Sequence[Path] | None,
        images: Sequence[Path] | None,
        algorithms: Sequence[str] | None,
        any_computation: bool,
    ) -> "Word":
        """Return it from a command's options.

        Raises:
            UsageError: options that contradict each other.
        """
        word = cls(
            tuple(manifests or ()), tuple(images or ()), tuple(algorithms or ()), any_computation
        )
        named = [
            name
            for name, given in (
                ("--for", word.manifests),
                ("--for-algorithm", word.algorithms),
                ("--any-computation", word.any_computation),
            )
            if given
        ]
        if len(named) > 1:
            raise UsageError(
                f"{' and '.join(named)} exclude each other",
                hint="a manifest names its program already; --for-image goes with each",
            )
        return word

    def __bool__(self) -> bool:
        return bool(self.manifests or self.images or self.algorithms or self.any_computation)

    def computations(self) -> list[Computation]:
        """Return what the manifests say.

        Raises:
            CocosError: a file that cannot be read, or is no manifest.
        """
        return [
            Computation.from_json(
                read_input(path, f"the manifest {path}", limit=MAX_MANIFEST_BYTES)
            )
            for path in self.manifests
        ]

    def policy(self, command: str = "cocos-cli policy") -> str:
        """Return it as a policy.

        Args:
            command: With which it was said, for the policy's first line.

        Raises:
            CocosError: a file that cannot be read or does not say enough, or no digest.
        """
        wanted = [owners.only_computation(each) for each in self.computations()]
        wanted += [owners.only_algorithm(digest) for digest in self.algorithms]
        terms = Terms(tuple(map(_image, self.images)), tuple(wanted))
        return owners.write(terms, said=f"{command} {self.options()}")

    def options(self) -> str:
        """Return it as it is written on a command line."""
        words = [word for path in self.manifests for word in ("--for", str(path))]
        words += [word for path in self.images for word in ("--for-image", str(path))]
        words += [word for each in self.algorithms for word in ("--for-algorithm", each)]
        words += ["--any-computation"] if self.any_computation else []
        return shlex.join(words)

    def caveat(self) -> str:
        """Say what it leaves open; empty where that is nothing.

        Raises:
            CocosError: as :meth:`computations`.
        """
        if self.manifests:
            in_clear = any(not each.result_consumers for each in self.computations())
            return _IN_CLEAR if in_clear else ""
        if self.algorithms:
            return (
                "this says which program, run without arguments and up to eight datasets; not "
                "on which data, nor who gets the result: --for MANIFEST says all of it"
            )
        which = "of this image " if self.images else ""
        return (
            f"whoever can start a computation on a machine {which}that the KBS trusts can read "
            "what this key opens; --for MANIFEST says which computation may"
        )


def note(word: Word) -> None:
    """Tell its owner what it leaves open."""
    if caveat := word.caveat():
        common.stderr.print(f"note: {caveat}", markup=False)


def can_ask(*, as_json: bool) -> bool:
    """Tell whether somebody is there to answer."""
    return not as_json and sys.stdin.isatty() and sys.stderr.isatty()


def ask(what: str) -> Word:
    """Ask who may get a key.

    Args:
        what: The key, for people.

    Raises:
        UsageError: nobody, for now.
    """
    common.stderr.print(
        f"Who may get {what}?\n"
        "  1  one computation: its program, its data, who gets the result (its manifest)\n"
        "  2  one program, on whatever data, for whoever starts it (its digest)\n"
        "  3  machines of one VM image, whatever they compute (its folder)\n"
        "  4  whatever runs on any machine that the KBS trusts\n"
        "  n  nobody yet: stop here, nothing is registered",
        markup=False,
    )
    match _prompt("1, 2, 3, 4 or n", "n"):
        case "1":
            return Word(manifests=(Path(_prompt("Manifest, JSON")),))
        case "2":
            return Word(algorithms=(_prompt("Digest of the program's image config"),))
        case "3":
            return Word(images=(Path(_prompt("Folder of the VM image")),))
        case "4":
            return Word(any_computation=True)
        case _:
            raise UsageError("nobody may get the key yet: nothing was done", hint=OPTIONS)


def _prompt(text: str, default: str | None = None) -> str:
    answer: str = typer.prompt(text, default=default, err=True)
    return answer.strip()


def _image(folder: Path) -> owners.Registers:
    file = folder / REFERENCE_VALUES
    data = read_input(file, "the image's reference values", limit=2**20)
    values: dict[str, Any] = json.decode(data, dict[str, Any], str(file))
    try:
        return owners.only_image(values)
    except FormatError as error:
        raise FormatError(f"{file}: {error.message}", hint=error.hint) from error
