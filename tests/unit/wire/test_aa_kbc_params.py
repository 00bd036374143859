# SPDX-License-Identifier: Apache-2.0
"""Where a guest's keys come from: one text, and one answer where two places name it."""

import pytest

from cocos.errors import FormatError
from cocos.wire.aa_kbc_params import KBS, OFFLINE, AaKbcParams, of_command_line, one_source
from cocos.wire.kbs.address import KbsAddress

KEY = "token-key=" + "A" * 43


@pytest.mark.parametrize(
    ("text", "kbc", "kbs"),
    [
        ("cc_kbc::http://kbs:8080", KBS, "http://kbs:8080"),
        ("cc_kbc::http://[::1]:8080", KBS, "http://[::1]:8080"),
        (f"cc_kbc::http://kbs#{KEY}", KBS, f"http://kbs#{KEY}"),
        ("cc_kbc::", KBS, None),
        ("cc_kbc::null", KBS, None),
        ("offline_fs_kbc::", OFFLINE, None),
        ("offline_fs_kbc::null", OFFLINE, None),
        ("offline_fs_kbc::http://kbs", OFFLINE, None),
    ],
)
def test_forms(text: str, kbc: str, kbs: str | None) -> None:
    expected = None if kbs is None else KbsAddress.parse(kbs)
    assert AaKbcParams.parse(text) == AaKbcParams(kbc, expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "::", "::null", "cc_kbc", "offline_fs_kbc", "cc_kbc:http://kbs", "http://kbs"),
        *("x::http://kbs", "CC_KBC::http://kbs", "offline_fs_kbc:null", "x::null"),
        *("cc_kbc::kbs", "cc_kbc::NULL", "cc_kbc:: http://kbs", "cc_kbc::file:///x"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        AaKbcParams.parse(text)


@pytest.mark.parametrize(
    ("named", "params", "expected"),
    [
        (None, None, None),
        (None, "cc_kbc::http://kbs", "cc_kbc::http://kbs"),
        (None, "cc_kbc::null", "cc_kbc::null"),
        (None, "offline_fs_kbc::null", "offline_fs_kbc::null"),
        ("http://kbs", None, "cc_kbc::http://kbs"),
        ("http://kbs", "cc_kbc::null", "cc_kbc::http://kbs"),
        ("http://kbs", "cc_kbc::HTTP://kbs:80/", "cc_kbc::http://kbs"),
        # Said in plain text, the KBS that the setting knows is still that one.
        (f"http://kbs#{KEY}", "cc_kbc::http://kbs", f"cc_kbc::http://kbs#{KEY}"),
    ],
)
def test_two_places_that_say_the_same(
    named: str | None, params: str | None, expected: str | None
) -> None:
    address = None if named is None else KbsAddress.parse(named)
    told = None if params is None else AaKbcParams.parse(params)
    found = one_source(address, told, setting="[kbs] url")
    assert found == (None if expected is None else AaKbcParams.parse(expected))


@pytest.mark.parametrize(
    ("named", "params"),
    [
        ("http://kbs", "cc_kbc::http://other"),
        ("http://kbs", "cc_kbc::http://kbs:81"),
        ("http://kbs", "cc_kbc::http://kbs/a"),
        ("http://kbs", f"cc_kbc::http://kbs#{KEY}"),
        ("http://kbs", "offline_fs_kbc::null"),
    ],
)
def test_two_places_that_say_different_things(named: str, params: str) -> None:
    with pytest.raises(FormatError, match=r"\[kbs\] url and aa_kbc_params name different KBSs"):
        one_source(KbsAddress.parse(named), AaKbcParams.parse(params), setting="[kbs] url")


ONE, OTHER = (f"agent.aa_kbc_params=cc_kbc::http://{each}" for each in "ab")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("quiet root=/dev/vda", None),
        ("quiet aa_kbc_params=x xagent.aa_kbc_params=x agent.aa_kbc_params", None),
        (ONE, "cc_kbc::http://a"),
        (f"quiet\t{ONE}\n", "cc_kbc::http://a"),
        (f"{ONE} {ONE}", "cc_kbc::http://a"),
        ("agent.aa_kbc_params=", ""),
    ],
)
def test_the_kernels_command_line(text: str, found: str | None) -> None:
    assert of_command_line(text) == found


@pytest.mark.parametrize("text", [f"{ONE} quiet {OTHER}", f"{ONE} agent.aa_kbc_params="])
def test_a_command_line_that_says_two_things(text: str) -> None:
    with pytest.raises(FormatError, match="twice"):
        of_command_line(text)
