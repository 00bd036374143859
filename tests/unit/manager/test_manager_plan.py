# SPDX-License-Identifier: Apache-2.0
import datetime as dt

import pytest
import trustme

from cocos.errors import FormatError
from cocos.manager.plan import CreateRequest, make_plan, parse_kbs_params, parse_ttl

SECOND = dt.timedelta(seconds=1)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def leaf(ca: trustme.CA) -> trustme.LeafCert:
    return ca.issue_cert("agent.example")


def pems(leaf: trustme.LeafCert) -> tuple[bytes, bytes]:
    return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", 5400),
        ("90s", 90),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("150ms", 0.15),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("10μs", 0.00001),
        ("5000ns", 0.000005),
        ("1h1m1s", 3661),
        ("1s1s", 2),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert parse_ttl(text) == seconds * SECOND


def test_no_ttl_is_no_limit() -> None:
    assert parse_ttl("") is None


@pytest.mark.parametrize(
    "text",
    ["1", "0", "0s", "-1h", "+1h", "1d", "h", "1h ", " 1h", "1 h", "1e3s", "1h30", "\u0661s", "999ns",
     "1" * 40 + "h", "99999999h", "1h\n"],
)  # fmt: skip
def test_bad_durations_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="time to live"):
        parse_ttl(text)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", ""),
        ("cc_kbc::http://10.0.0.1:8080", "cc_kbc::http://10.0.0.1:8080"),
        ("cc_kbc::https://[::1]:8080/kbs", "cc_kbc::https://[::1]:8080/kbs"),
    ],
)
def test_kbs_params(text: str, params: str) -> None:
    assert parse_kbs_params(text) == params


@pytest.mark.parametrize(
    "text",
    ["http://10.0.0.1:8080", "offline_fs_kbc::null", "cc_kbc::", "cc_kbc::null", "cc_kbc::ftp://h", "cc_kbc::http://u:p@h",
     "cc_kbc::http://h\nAGENT_X=1", "cc_kbc::http://h:99999", "x::cc_kbc::http://h", "http://",
     "cc_kbc::http://a b"],
)  # fmt: skip
def test_bad_kbs_params_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="KBS"):
        parse_kbs_params(text)


def test_a_plan_without_tls() -> None:
    plan = make_plan(CreateRequest("http://10.0.0.1:7001", ttl="1m", log_level="WARN"))
    assert (plan.cvms, plan.ttl, plan.log_level) == ("10.0.0.1:7001", 60 * SECOND, "warning")
    assert not plan.variables


def test_a_plan_with_client_certificate(ca: trustme.CA, leaf: trustme.LeafCert) -> None:
    cert, key = pems(leaf)
    request = CreateRequest(
        "cvms.example", server_ca=ca.cert_pem.bytes(), client_cert=cert, client_key=key
    )
    plan = make_plan(request)
    assert plan.cvms == "cvms.example:7001"
    assert plan.client_key == key


def test_secrets_do_not_show(leaf: trustme.LeafCert, ca: trustme.CA) -> None:
    cert, key = pems(leaf)
    request = CreateRequest(
        "h", server_ca=ca.cert_pem.bytes(), client_cert=cert, client_key=key,
        certs_token="hush-token", aws={"AWS_SECRET_ACCESS_KEY": "hush-aws"},
    )  # fmt: skip
    shown = f"{request!r} {make_plan(request)!r}"
    assert "hush" not in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (CreateRequest(""), "missing"),
        (CreateRequest("https://h"), "CA certificate"),
        (CreateRequest("h", log_level="loud"), "log level"),
        (CreateRequest("h", server_ca=b"x"), "no PEM certificate"),
        (CreateRequest("h", client_key=b"x"), "belong together"),
        (CreateRequest("h", registry_ca=b"x"), "the registries' CA certificate is no PEM"),
        (CreateRequest("h", registry_credentials="kbs:///a/b/c"), "none is named"),
        (
            CreateRequest(
                "h", registry_credentials="a/b/c", kbs_params="cc_kbc::http://kbs.example"
            ),
            "not a resource URI",
        ),
        (CreateRequest("h", ca_url="http://ca\nX=1"), "AGENT_CVM_CA_URL"),
        (CreateRequest("h", certs_token="a\0b"), "AGENT_CERTS_TOKEN"),
        (CreateRequest("h", ttl="soon"), "time to live"),
    ],
)
def test_bad_requests_are_refused(request_: CreateRequest, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        make_plan(request_)


def test_plaintext_scheme_with_a_ca_is_a_contradiction(ca: trustme.CA) -> None:
    with pytest.raises(FormatError, match="plaintext"):
        make_plan(CreateRequest("http://h", server_ca=ca.cert_pem.bytes()))


def test_a_key_of_another_certificate_is_refused(ca: trustme.CA, leaf: trustme.LeafCert) -> None:
    cert, _ = pems(leaf)
    _, other = pems(ca.issue_cert("other.example"))
    request = CreateRequest("h", server_ca=ca.cert_pem.bytes(), client_cert=cert, client_key=other)
    with pytest.raises(FormatError, match="does not belong"):
        make_plan(request)
