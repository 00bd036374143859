# SPDX-License-Identifier: Apache-2.0
"""Files of reference values: what one command prints the other takes, whatever the values are."""

import contextlib
import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.wire import reference_values as files

NAMES = st.sampled_from(["svn", "inputs", "a/b", "value", "expiration", "é"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["expiration", "value", "name", "version", "x"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
TIMES = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(9999, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0, tzinfo=dt.UTC)
)
LISTED = st.dictionaries(NAMES, st.tuples(JSON, TIMES), max_size=5).map(
    lambda values: [
        {"version": "0.1.0", "name": name, "value": value, "expiration": end.strftime(files.TIME)}
        for name, (value, end) in values.items()
    ]
)


@given(LISTED)
def test_every_value_comes_back(listed: list[dict[str, Any]]) -> None:
    """Of get-reference-values the values, of list-reference-values --json their ends as well."""
    values = {each["name"]: each["value"] for each in listed}
    ends = {each["name"]: files.parse_time(each["expiration"], "x") for each in listed}
    backup = files.parse(json.dumps(files.dump(listed)).encode(), "f")
    assert {name: value for name, (value, _) in backup.items()} == values
    for name, (_, end) in backup.items():
        assert end in {None, ends[name]}
    assert files.parse(json.dumps(listed).encode(), "f") == {
        name: (value, ends[name]) for name, value in values.items()
    }


@given(JSON, TIMES)
def test_the_operator_s_form(value: Any, end: dt.datetime) -> None:
    text = json.dumps({"svn": {"expiration": end.strftime(files.TIME), "value": value}})
    assert files.parse(text.encode(), "f") == {"svn": (value, end)}


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_it_is_it_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(files.parse(data, "FILE"), dict)
        assert isinstance(json.loads(data), dict | list)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[{"name": "svn"}]', "[0]"),
        ('[{"value": 1}]', "[0]"),
        ('[{"name": "a", "value": 1, "colour": 2}]', "[0]"),
        ('[{"name": "a", "value": 1}, {"name": "a", "value": 1}]', "a is there twice"),
        ('{"a": {"value": 1, "expiration": "tomorrow"}}', "a: the expiration"),
        ('{"a": {"value": 1, "expiration": "2027-01-01T00:00:00"}}', "a: the expiration"),
        ('{"a": {"value": 1, "expiration": 7}}', "a: the expiration"),
        ('{"a": {"value": 1, "expiration": "0001-01-01T00:00:00Z"}}', "a: the expiration"),
        ('{"a": 1, "a": 2}', "twice"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(FormatError) as caught:
        files.parse(text.encode(), "FILE")
    assert named in caught.value.message


def test_an_image_s_inputs_are_left_out() -> None:
    assert files.parse(b'{"inputs": {"kernel": "x"}, "pcr11": ["y"]}', "f") == {
        "pcr11": (["y"], None)
    }
    assert files.parse(b'{"inputs": ["mine"]}', "f") == {"inputs": (["mine"], None)}
