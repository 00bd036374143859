# SPDX-License-Identifier: Apache-2.0
"""A public Trustee of one release, as kbs.md §2, §3, §6 and §19 describe it.

Nothing of ours is in it: messages are made with the standard library, cryptography and
joserfc, so that our client has somebody else to talk to.
"""

import base64
import contextlib
import datetime as dt
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, RSAKey

URL = "http://trustee.test:8080"
ERRORS = "https://github.com/confidential-containers/kbs/errors/"


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


@dataclass
class Trustee:
    """Speaks exactly one version; answers 401 to nearly everything that it does not like.

    Attributes:
        version: Of the protocol.
        silent: Says nothing of the reason when it refuses a Request.
        denies: Its resource policy says no.
        resources: Path → secret.
        requests: Method, path and body of everything that came.
    """

    version: str
    silent: bool = False
    denies: bool = False
    resources: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    nonce: str = ""
    key: dict[str, str] | None = None
    signer: Any = field(default_factory=lambda: ECKey.generate_key("P-256"))

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/kbs/v0/")
        self.requests.append((request.method, path, request.content))
        match request.method, path.partition("/")[0]:
            case "POST", "auth":
                return self._auth(json.loads(request.content))
            case "POST", "attest":
                return self._attest(json.loads(request.content), request)
            case "GET", "resource":
                return self._resource(path.removeprefix("resource/"), request)
        return refuse("PluginNotFound", f"Plugin {path} not found", 404)

    def versions(self) -> list[str]:
        """The versions that were asked for, in order."""
        return [json.loads(body)["version"] for _, path, body in self.requests if path == "auth"]

    def attestation(self) -> Any:
        """The last attestation."""
        return json.loads([body for _, path, body in self.requests if path == "attest"][-1])

    def _auth(self, body: Any) -> httpx.Response:
        assert set(body) == {"version", "tee", "extra-params"}
        if body["version"] != self.version:
            if self.version == "0.1.1":
                text = f"KBS Client Protocol Version Mismatch: expect ={self.version}"
                return refuse("ProtocolVersion", text)
            text = "Attestation error: RCAR handshake Auth failed"
            if not self.silent:
                text += (
                    f": KBS Client Protocol Version Mismatch: expect ={self.version} while the "
                    f"request is {body['version']}"
                )
            return refuse("AttestationError", text)
        self.nonce = base64.b64encode(os.urandom(32)).decode()
        self.key = None
        return httpx.Response(
            200,
            json={"nonce": self.nonce, "extra-params": ""},
            headers={"Set-Cookie": f"kbs-session-id={'0' * 32}; Expires={_soon()}"},
        )

    def _attest(self, body: Any, request: httpx.Request) -> httpx.Response:
        assert request.headers["Cookie"] == f"kbs-session-id={'0' * 32}"
        if self.version == "0.4.0":
            assert set(body) - {"init-data"} == {"runtime-data", "tee-evidence"}
            assert body["runtime-data"]["nonce"] == self.nonce
            key = body["runtime-data"]["tee-pubkey"]
            evidence = body["tee-evidence"]["primary_evidence"]
            bound = {"additional-evidence": body["tee-evidence"]["additional_evidence"]}
        else:
            assert set(body) == {"tee-pubkey", "tee-evidence"}
            key, evidence, bound = body["tee-pubkey"], body["tee-evidence"], {}
        bound |= {"nonce": self.nonce, "tee-pubkey": key}
        text = json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
        if base64.b64decode(evidence["report_data"]) != hashlib.sha384(text).digest():
            return refuse("AttestationError", "Attestation error: RCAR handshake Attest failed")
        self.key = key
        return httpx.Response(200, json={"token": self._token(key)})

    def _token(self, key: dict[str, str]) -> str:
        now = int(dt.datetime.now(dt.UTC).timestamp())
        claims: dict[str, Any] = {"iat": now, "exp": now + 300}
        if self.version == "0.1.1":  # the Simple token
            signer = RSAKey.generate_key(2048)
            claims |= {"customized_claims": {"runtime_data": {"tee-pubkey": key}}}
            return jwt.encode({"alg": "RS384", "typ": "JWT"}, claims, signer, ["RS384"])
        claims["submods"] = {"cpu0": {"ear.status": "affirming"}}
        return jwt.encode({"alg": "ES256", "typ": "JWT"}, claims, self.signer)

    def _resource(self, path: str, request: httpx.Request) -> httpx.Response:
        old = self.version == "0.1.1"
        if request.headers.get("Cookie") != f"kbs-session-id={'0' * 32}" or self.key is None:
            if old:
                return refuse("UnAuthenticatedCookie", "The cookie is not authenticated")
            return refuse("TokenNotFound", "Attestation Token not found")
        if self.denies:
            return refuse("PolicyReject" if old else "PolicyDeny", "Access denied by policy")
        if path not in self.resources:
            if old:
                return refuse("ReadSecretFailed", "Read secret failed", 404)
            return refuse("PluginInternalError", "Plugin internal error")
        seal = early_jwe if old else todays_jwe
        return httpx.Response(200, json=seal(self.resources[path], self.key))


@contextlib.contextmanager
def serving(trustee: Trustee) -> Iterator[str]:
    """Have it answer on loopback, for clients that are programs; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = httpx.Request(self.command, URL + self.path, content=body)
            request.headers.update(self.headers.items())
            answer = trustee(request)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST  # noqa: N815 - http.server's name

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refuse(variant: str, detail: str, status: int = 401) -> httpx.Response:
    """An error as Trustee sends it: without a Content-Type."""
    body = json.dumps({"type": ERRORS + variant, "detail": detail}).encode()
    return httpx.Response(status, content=body)


def todays_jwe(secret: bytes, key: dict[str, str]) -> Any:
    kind: Any = ECKey if key["kty"] == "EC" else RSAKey
    names = [key["alg"], "A256GCM"]
    protected = {"alg": key["alg"], "enc": "A256GCM"}
    sealed = jwe.encrypt_compact(protected, secret, kind.import_key(key), algorithms=names)
    members = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    return dict(zip(members, sealed.split("."), strict=True))


def early_jwe(secret: bytes, key: dict[str, str]) -> Any:
    assert (key["kty"], key["alg"]) == ("RSA", "RSA1_5")
    public = rsa.RSAPublicNumbers(unb64u(key["e"]), unb64u(key["n"])).public_key()
    cek, iv = os.urandom(32), os.urandom(12)
    return {
        "protected": '{"alg":"RSA1_5","enc":"A256GCM"}',
        "encrypted_key": b64u(public.encrypt(cek, padding.PKCS1v15())),
        "iv": b64u(iv),
        "ciphertext": b64u(AESGCM(cek).encrypt(iv, secret, None)),
        "tag": "",
    }


def _soon() -> str:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
