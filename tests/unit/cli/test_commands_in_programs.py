# SPDX-License-Identifier: Apache-2.0
"""What our units, programs and hints call or tell to call is there, by the names of today."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from _command_lines import COMMANDS, PROGRAMS, ROOT, parse

from cocos.cli._names import shown
from cocos.manager.backends import local
from cocos.manager.plan import CreateRequest, make_plan

GUEST = ROOT / "src/cocos/image/guest"
MODULES = {module: name for name, module in PROGRAMS.items()}
SOURCES = [file for folder in ("src", "tools", "bench") for file in (ROOT / folder).rglob("*.py")]
SHOWN = {
    name
    for command in COMMANDS.values()
    for option in command.params
    if option.param_type_name == "option"
    for name in (*shown(option.opts), *option.secondary_opts)
} | {"--help", "--version"}
FOREIGN = frozenset({"openssl", "ss", "--encryption-key", "--dest-compress-format"})
"""Programs of others, and options of Skopeo's, that hints speak of."""


def units() -> Iterator[tuple[str, list[str]]]:
    """Yield each command line of ours in a unit, with the values of its environment files."""
    for unit in sorted(GUEST.rglob("*.service")):
        text = unit.read_text()
        values: dict[str, str] = {}
        for file in re.findall(r"^EnvironmentFile=-?(/etc/.*)$", text, re.MULTILINE):
            lines = (GUEST / f"root{file}").read_text()
            values |= dict(re.findall(r"^([A-Z_]+)=(.*)$", lines, re.MULTILINE))
        for line in re.findall(r"^Exec\w+=[-@:+!]*(.*)$", text, re.MULTILINE):
            for name, value in values.items():
                line = line.replace(f"${{{name}}}", value)  # noqa: PLW2901
            program, *words = shlex.split(line)
            if Path(program).name in PROGRAMS:
                yield unit.name, [Path(program).name, *words]


UNITS = list(units())


@pytest.mark.parametrize(("unit", "words"), UNITS)
def test_what_a_unit_starts(unit: str, words: list[str]) -> None:
    parse(words)


def test_units_start_our_programs() -> None:
    assert {words[0] for _, words in UNITS} == {
        "attestation-agent",
        "coco-keyprovider",
        "cocos-agent",
    }


def test_what_the_backend_without_vms_starts(tmp_path: Path) -> None:
    plan = make_plan(CreateRequest(cvms_url="localhost:7001"))
    for program in local.programs("id", plan, tmp_path):
        parse([program.name, *program.arguments])


def modules() -> Iterator[list[str]]:
    """Yield each command line that begins one of our programs by its module."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.List | ast.Tuple):
                words = [
                    each.value if isinstance(each, ast.Constant) else "x" for each in node.elts
                ]
                if len(words) > 3 and "-m" in words:
                    module, *rest = words[words.index("-m") + 1 :]
                    if module in MODULES:
                        yield [MODULES[module], *map(str, rest)]


def test_what_a_program_starts_by_its_module() -> None:
    found = list(modules())
    assert found
    for words in found:
        parse(words)


def sentences(node: ast.AST) -> Iterator[str]:
    """Yield the texts of what is raised, and of hints; of an f-string its constant parts."""
    for each in ast.walk(node):
        inside = (
            [each.exc]
            if isinstance(each, ast.Raise)
            else [each.value]
            if isinstance(each, ast.keyword) and each.arg == "hint"
            else []
        )
        for part in inside:
            for text in ast.walk(part) if part is not None else ():
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value


TOLD = {
    (file.relative_to(ROOT).as_posix(), text)
    for file in SOURCES
    for text in sentences(ast.parse(file.read_text()))
    if re.search(r"(?<![\w-])--[a-z]", text) and not FOREIGN & set(re.split(r"[ :]", text))
}


@pytest.mark.parametrize(("file", "text"), sorted(TOLD))
def test_an_option_that_a_sentence_names_is_one_that_help_shows(file: str, text: str) -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= SHOWN


def test_sentences_name_options() -> None:
    assert len(TOLD) > 40
    assert any("kbs-client" in text for _, text in TOLD)


@pytest.mark.parametrize(
    "line",
    [
        "attestation-agent --atestation_sock 127.0.0.1:1",
        "attestation-agent --socket",
        "coco-keyprovider --socket 127.0.0.1:1 serve",
        "coco-keyprovider --socket 127.0.0.1:1 once more",
        "kbs --timeout soon",
        "cocos-agent --cvms-url ftp://h:1",
        "cocos-cli secret vault kbs:///a/b/c --signing-key x",
        "kbs-client config",
    ],
)
def test_a_wrong_one_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        parse(line.split())
