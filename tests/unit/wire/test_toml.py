# SPDX-License-Identifier: Apache-2.0
import tomllib

import pytest

from cocos.errors import FormatError
from cocos.wire import toml

LONG = ".".join(["a"] * 20_000)  # five seconds of the plain parser; hours for a megabyte
QUOTED = LONG.replace("a", '".."')


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG} = 1",
        f"[{LONG}]",
        f"x = {{{LONG} = 1}}",
        f"{QUOTED} = 1",
        f"{LONG.replace('.', ' . ')} = 1",
        # Behind strings and comments that end where one does not expect it.
        f'x = {{y = """a"""", {LONG} = 1, z = ""}}',
        f"x = {{y = '''a'''', {LONG} = 1, z = ''}}",
        f'x = {{y = """\\\\""", {LONG} = 1}}',
        f"x = {{y = 'a\\', {LONG} = 1, z = ''}}",
        f'# """\n{LONG} = 1\n# """',
        f"x = '\"'\n{LONG} = 1\ny = '\"'",
    ],
)
def test_a_key_that_would_keep_the_parser_busy_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="parts"):
        toml.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * toml.MAX_KEY_PARTS) + " = 1",
        f'x = "{LONG}"',
        f"x = '''\n{LONG}'''",
        f'x = """a"""" # {LONG}',
        f"x = 1 # {LONG}",
        "x = [" + ", ".join(["1.5"] * 100) + "]",
        "".join(f"x{n} = 1.5\n" for n in range(100)),
        f'x = "\\"{LONG}"',
    ],
)
def test_dots_elsewhere_are_none_of_its_business(text: str) -> None:
    assert toml.loads(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", ["x", "x = " + "9" * 5000, "x = " + "[" * 5000])
def test_what_is_not_toml_is_one_error(text: str) -> None:
    with pytest.raises(FormatError, match="not TOML"):
        toml.loads(text)


def test_unended_strings_cost_no_more_than_their_length() -> None:
    for piece in ('\\"""x\n', '"""\\', "'''x\n", '"x', "'x\n"):
        with pytest.raises(FormatError):
            toml.loads(piece * 200_000)
