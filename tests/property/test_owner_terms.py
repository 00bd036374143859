# SPDX-License-Identifier: Apache-2.0
"""What an owner says becomes Rego that means it, whatever the names in it are made of."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import ConfigError, FormatError
from cocos.policy import defaults, owners
from cocos.policy.engine import Policy
from cocos.policy.owners import Terms
from cocos.wire.manifest.computation import arguments_digest

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
FEW = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
"""Few, so that machines and terms meet."""
REGISTERS = st.dictionaries(
    st.sampled_from(["pcr04", "pcr09", "pcr11"]), st.lists(FEW, min_size=1, max_size=2), min_size=1
)
MEMBERS = st.fixed_dictionaries(
    {"algorithm_digest": st.lists(FEW, min_size=1, max_size=2)},
    optional={
        "manifest_digest": st.lists(FEW, min_size=1, max_size=2),
        "dataset_digests": st.lists(st.lists(FEW, max_size=2), min_size=1, max_size=2),
    },
)
TERMS = st.builds(
    Terms,
    st.lists(REGISTERS, max_size=2).map(tuple),
    st.lists(MEMBERS, max_size=2).map(tuple),
)
RAN = st.fixed_dictionaries(
    {},
    optional={
        "algorithm_digest": st.none() | FEW,
        "manifest_digest": FEW,
        "dataset_digests": st.lists(FEW, max_size=2),
    },
)
TPM = st.fixed_dictionaries(
    {},
    optional={
        "pcr04": FEW,
        "pcr09": FEW,
        "pcr11": st.none() | FEW,
        "computations": st.lists(RAN, max_size=2) | st.none() | FEW,
    },
)
SAID = st.text(max_size=60) | st.sampled_from(
    [
        "x\nallow := true",
        "x\r\ndefault allow := true",
        "\u2028allow := true",
        "`",
        '"',
        "#\n",
        "\x85",
    ]
)


def ask(text: str, tpm: Any, status: str = "affirming", more: int = 0) -> dict[str, Any]:
    cpu = {"ear.status": status, "ear.veraison.annotated-evidence": {"tpm": tpm}}
    submods = {"cpu0": cpu, **{f"gpu{n}": {"ear.status": "affirming"} for n in range(more)}}
    policy, document = Policy(text), {"submods": submods}
    try:
        return policy.evaluate(["allow", "findings"], document)
    except ConfigError:  # a policy that fails denies
        return {"allow": False, "findings": [policy.text]}


def means(terms: Terms, tpm: dict[str, Any]) -> bool:
    """The terms, said once more in Python."""
    ran = tpm.get("computations")
    image = not terms.images or any(
        all(tpm.get(pcr) in values for pcr, values in each.items()) for each in terms.images
    )
    computation = not terms.computations or (
        isinstance(ran, list)
        and len(ran) == 1
        and any(
            all(name in ran[0] and ran[0][name] in value for name, value in each.items())
            for each in terms.computations
        )
    )
    return image and computation


@given(TERMS, TPM, SAID)
def test_it_allows_what_was_said_and_nothing_else(
    terms: Terms, tpm: dict[str, Any], said: str
) -> None:
    text = owners.write(terms, said=said)
    answer = ask(text, tpm)
    assert answer["allow"] is means(terms, tpm)
    if terms.images or terms.computations:
        assert bool(answer["findings"]) is not answer["allow"]
        assert ask(text, tpm, more=1)["allow"] is False
    assert ask(text, tpm, status="warning")["allow"] is False


@given(TERMS, SAID, SAID)
def test_how_it_was_said_changes_nothing(terms: Terms, one: str, other: str) -> None:
    first, second = owners.write(terms, said=one), owners.write(terms, said=other)
    assert owners.same(first, second)
    assert first.split("\n")[1:] == second.split("\n")[1:]
    assert first.isascii()


def test_how_it_was_said_can_be_read_again() -> None:
    text = owners.write(Terms(), said="a ~'\\\n\u2028b")
    assert text.startswith("# Made by: a ~'\\\\n\\u2028b\n")


@given(TERMS, TERMS, SAID)
def test_other_terms_are_another_policy(one: Terms, other: Terms, said: str) -> None:
    texts = owners.write(one, said=said), owners.write(other, said=said)
    assert owners.same(*texts) is (texts[0] == texts[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\tcomputation\n", "\t# x\r\tcomputation\n", 1),
        lambda text: text + "\nallow := true\n",
        lambda text: text.replace("# To change", "allow := true # To change"),
        lambda text: text.replace("# To change", "# x\u2028# To change"),
        lambda text: f"# x\rallow := true\n{text}",
        lambda text: text.replace("== 1", "== 2", 1),
    ],
)
def test_a_policy_that_only_looks_alike_is_another(change: Any) -> None:
    text = owners.write(Terms(computations=({"algorithm_digest": ["a" * 64]},)), said="x")
    assert change(text) != text
    assert not owners.same(change(text), text)


@pytest.mark.parametrize("datasets", range(11))
def test_a_program_without_arguments_is_known_with_up_to_eight_datasets(datasets: int) -> None:
    found = owners.only_algorithm("a" * 64)["arguments_digest"]
    assert (arguments_digest((), [""] * datasets).hex() in found) is (datasets <= 8)
    assert arguments_digest(("x",), [""] * datasets).hex() not in found


@given(st.text() | DIGEST.map(lambda d: d + "\n") | DIGEST.map(lambda d: d[:-1] + '"'))
def test_what_is_no_digest_is_refused(text: str) -> None:
    try:
        found = owners.only_algorithm(text)
    except FormatError:
        pass
    else:
        assert all(letter in "0123456789abcdef" for letter in found["algorithm_digest"][0])
    with pytest.raises(FormatError):
        owners.only_image({"tpm_pcr11": [text]})


@given(st.dictionaries(st.text(max_size=30), st.lists(DIGEST) | st.text()), DIGEST)
def test_names_of_reference_values_do_not_become_rego(values: dict[str, Any], digest: str) -> None:
    hostile = {'tpm_pcr11"] == 1': [digest], "tpm_pcr11_events": [digest], "tpm_pcr16": [digest]}
    found = owners.only_image({**values, **hostile, "tpm_pcr11": [digest]})
    assert found["pcr11"] == [digest]
    assert all(name.startswith("pcr") and len(name) == 5 for name in found)
    Policy(owners.write(Terms(images=(found,)), said="x"))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"tpm_pcr11": []},
        {"tpm_pcr11": "a" * 64},
        {"tpm_pcr11": {"a" * 64: True}},
        {"tpm_pcr11": 1},
        {"tpm_pcr04": ["a" * 64]},
        {"tpm_pcr11": [1]},
    ],
    ids=str,
)
def test_values_that_tell_no_image_from_another_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        owners.only_image(values)


def test_no_terms_are_the_defaults_own_words() -> None:
    text = owners.write(Terms(), said="x")
    assert owners.same(text, defaults.text(defaults.RESOURCE))
    assert text != defaults.text(defaults.RESOURCE)
