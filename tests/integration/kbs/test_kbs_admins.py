# SPDX-License-Identifier: Apache-2.0
"""The real KBS with a configuration file of Trustee, and administrators of every kind."""

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from _kbs import admin_pair
from _programs import running
from joserfc import jwt as jose
from joserfc.jwk import ECKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos._clock import system_clock
from cocos.crypto import admin_jwt
from cocos.host import process
from cocos.transport.http_server import serve_http
from cocos.transport.tls_files import TlsFiles
from cocos.transport.web import WebApp, health, json_response

pytestmark = pytest.mark.integration

KBS = Path(sys.executable).with_name("kbs")
RESOURCE = "/kbs/v0/resource/a/b/c"


def token(key: ECKey, **claims: Any) -> str:
    exp = int((system_clock() + dt.timedelta(minutes=5)).timestamp())
    full = {"iss": "issuer", "aud": ["kbs"], "sub": "alice", "exp": exp, **claims}
    return jose.encode({"alg": "ES256", "kid": "1"}, full, key)


class Issuer:
    """An identity provider on HTTPS; its discovery document names its keys."""

    def __init__(self, folder: Path) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "1"})
        self.url = ""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.tls = TlsFiles(folder / "id.crt", folder / "id.key")
        self.tls.certificate.write_bytes(b"".join(b.bytes() for b in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.tls.private_key)

    def app(self) -> WebApp:
        async def metadata(_request: Request) -> Response:
            return json_response({"issuer": "issuer", "jwks_uri": f"{self.url}/keys"})

        async def keys(_request: Request) -> Response:
            return json_response({"keys": [self.key.as_dict(private=False)]})

        return WebApp(
            [
                Route("/realm/.well-known/openid-configuration", metadata),
                Route("/keys", keys),
                Route("/healthz", health),
            ]
        )


async def test_tokens_of_an_identity_provider(tmp_path: Path) -> None:
    issuer, file = Issuer(tmp_path), tmp_path / "kbs.toml"
    stranger = ECKey.generate_key("P-256", {"kid": "1"})
    async with serve_http(issuer.app(), "127.0.0.1:0", tls=issuer.tls) as url:
        issuer.url = url
        file.write_text(f"""
            [http_server]
            sockets = ["127.0.0.1:0"]
            insecure_http = true
            [admin]
            authorization_mode = "AuthenticatedAuthorization"
            [admin.authentication.bearer_jwt]
            identity_providers = [
                {{ issuer = "issuer", audience = "kbs", jwk_set_uri = "{url}/realm" }},
            ]
            [admin.authorization.regex_acl]
            acls = [
                {{ role = "owner", allowed_endpoints = "^/kbs/v0/resource/.+$" }},
                {{ role = "values", allowed_endpoints = "^/kbs/v0/reference-value/[a-z]+$" }},
            ]
            [storage_backend]
            storage_type = "Memory"
            [[plugins]]
            name = "resource"
            """)
        environment = {"SSL_CERT_FILE": str(issuer.ca)}
        async with (
            running("kbs", "--config-file", file, env=environment) as program,
            httpx.AsyncClient(base_url=program.address, trust_env=False) as http,
        ):

            async def post(text: str, path: str = RESOURCE) -> httpx.Response:
                headers = {"Authorization": f"Bearer {text}"}
                return await http.post(path, content=b"x", headers=headers)

            owner = token(issuer.key, role="owner")
            assert (await post(owner)).status_code == 200
            assert (await post(owner, f"{RESOURCE}?why=not")).status_code == 200
            denied = await post(token(issuer.key, role="values"))
            assert denied.status_code == 403
            assert "Role values not allowed" in denied.json()["detail"]
            assert denied.json()["type"].endswith("/AdminAuthAccess")
            headers = {"Authorization": f"Bearer {token(issuer.key, role='values')}"}
            value = await http.get("/kbs/v0/reference-value/svn?a=b", headers=headers)
            assert value.status_code == 404
            for forged in (
                token(stranger, role="owner"),
                token(issuer.key, role="owner", iss="other"),
                token(issuer.key, role="owner", aud="other"),
                token(issuer.key, role="owner", exp=1),
                f"{owner.rpartition('.')[0]}.",
            ):
                refused = await post(forged)
                assert refused.status_code == 401
                assert "with any of the issuers" in refused.json()["detail"]
        assert "alice@issuer" in program.text
        assert "kbs.storage-in-memory" in program.text
        assert owner not in program.text


async def test_personas_and_their_roles(tmp_path: Path) -> None:
    pairs = {name: admin_pair() for name in ("alice", "bob")}
    for name, (_, public) in pairs.items():
        (tmp_path / f"{name}.pub").write_bytes(public)
    file = tmp_path / "kbs.toml"
    file.write_text(f"""
        [http_server]
        sockets = ["127.0.0.1:0"]
        insecure_http = true
        [attestation_service]
        type = "coco_as_builtin"
        work_dir = "{tmp_path}/as"
        [policy_engine]
        policy_path = "{tmp_path}/none.rego"
        [admin]
        type = "Simple"
        personas = [
            {{ id = "alice", public_key_path = "{tmp_path}/alice.pub" }},
            {{ id = "bob", public_key_path = "{tmp_path}/bob.pub" }},
        ]
        roles = [{{ id = "alice", allowed_endpoints = "^{RESOURCE}$" }}]
        [[plugins]]
        name = "resource"
        type = "LocalFs"
        dir_path = "{tmp_path}/repository"
        """)
    async with (
        running("kbs", "--config-file", file) as program,
        httpx.AsyncClient(base_url=program.address, trust_env=False) as http,
    ):
        for name, path, status in (
            ("alice", RESOURCE, 200),
            ("alice", f"{RESOURCE}d", 403),
            ("alice", "/kbs/v0/resource/a/b%2Fc", 200),  # the same path, once decoded
            ("bob", RESOURCE, 403),
        ):
            text = admin_jwt.mint(pairs[name][0], now=system_clock())
            headers = {"Authorization": f"Bearer {text}"}
            answer = await http.post(path, content=b"x", headers=headers)
            assert answer.status_code == status, (name, path)
    assert (tmp_path / "repository").is_dir()
    assert "kbs.setting-without-effect" in program.text
    assert "attestation_service.work_dir" in program.text
    assert "kbs.no-resource-policy-file" in program.text


async def test_nobody_administers(tmp_path: Path) -> None:
    file = tmp_path / "kbs.json"
    http_server = {"sockets": ["127.0.0.1:0"], "insecure_http": True}
    settings = {"http_server": http_server, "admin": {"type": "DenyAll"}, "storage": "memory:"}
    file.write_text(json.dumps(settings))
    async with (
        running("kbs", "--config", file, env={"RUST_LOG": "warn,kbs=debug"}) as program,
        httpx.AsyncClient(base_url=program.address, trust_env=False) as http,
    ):
        answer = await http.post(RESOURCE, content=b"x")
    assert answer.status_code == 403
    assert "DenyAll authorization_mode is enabled" in answer.json()["detail"]
    assert "kbs.insecure-http" in program.text
    assert "level=info" not in program.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http_server]\nsocket = []", "did you mean sockets?"),
        ("[[plugins]]\nname = 'pkcs11'", "plugins[0].name = 'pkcs11' is not possible here"),
        (
            "[admin]\ntype = 'Simple'\npersonas = [{id = 'a', public_key_path = '/nowhere'}]",
            "/nowhere",
        ),
        ("insecure_api = true\nresource_policy_file = '/'", "the resource policy, /"),
    ],
)
async def test_a_file_that_cannot_be_honoured(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "kbs.toml"
    file.write_text(text)
    flags = ("--insecure-http", "--socket", "127.0.0.1:0", "--storage", tmp_path / "storage")
    done = await process.run([KBS, *flags, "--config-file", file], check=False, timeout=60)
    assert done.exit_status == 78
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
