# SPDX-License-Identifier: Apache-2.0
import contextlib

from hypothesis import given
from hypothesis import strategies as st

from cocos.errors import FormatError
from cocos.wire.aa_kbc_params import KBS, OFFLINE, AaKbcParams, of_command_line

PIECES = ["::", ":", "cc_kbc", "offline_fs_kbc", "http://", "[", "]", "a", "null", "@", "/", "\0"]
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
HOSTS = st.sampled_from(["kbs.example", "127.0.0.1:8080", "[::1]", "[fd00::1:2]:443"])


@given(text=TEXTS)
def test_any_text_is_params_or_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        found = AaKbcParams.parse(text)
        assert found.kbc in {KBS, OFFLINE}
        assert found.kbs is None or found.kbs.url.startswith("http")


@given(host=HOSTS, path=st.sampled_from(["", "/", "/base", "/base//"]), others=st.text(max_size=20))
def test_every_url_can_be_expressed(host: str, path: str, others: str) -> None:
    text = f"{KBS}::http://{host}{path}"
    kbs = AaKbcParams.parse(text).kbs
    assert kbs is not None
    assert kbs.url == f"http://{host}{path}".rstrip("/")
    words = f"quiet {others.replace('agent.', '')} agent.aa_kbc_params={text}\n"
    assert of_command_line(words) == text
