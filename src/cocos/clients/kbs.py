# SPDX-License-Identifier: Apache-2.0
"""A guest's side of the key broker service: sessions and resources.

One session serves every resource until it ends; concurrent callers share it. Where the
address says what the KBS is known by, another one that answers is found out: by TLS before
anything is sent, or by a signature that every resource comes with.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Self

from cocos.clients._http import Answer, Transport, read_ca
from cocos.clients._kbs_http import (
    BASE,
    OK,
    address_of,
    decode,
    open_server,
    refusal,
    session_ended,
)
from cocos.clients.kbs_admin import KbsAdmin
from cocos.clients.kbs_session import (
    AgentSessions,
    EvidenceSource,
    OwnSessions,
    Session,
    SessionSource,
    TokenSource,
    proof_header,
)
from cocos.crypto import base64url, detached
from cocos.crypto.tee_key import EC_P256, TeeKeyPair
from cocos.errors import (
    AccessDeniedError,
    AuthenticationError,
    FormatError,
    IntegrityError,
    ProtocolError,
)
from cocos.wire.kbs import proof
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.generations import Generation

__all__ = ["EvidenceSource", "KbsAdmin", "KbsClient", "Session", "TokenSource"]


class KbsClient:
    """Attests to one KBS and fetches resources from it; an async context manager.

    Args:
        url: Address of the KBS (:mod:`cocos.wire.kbs.address`).
        source: Who makes evidence for a handshake of ours, or who makes the handshake and
            hands out tokens; then the settings of handshakes are of no use.
        ca_file: The only CA to trust, as PEM, where the address names nothing; the system's
            CAs without.
        ca: The same as text; ``ca_file`` wins.
        init_data: What the host passed in, for the KBS to appraise.
        key: Key pair for every session; without it every session gets a new one.
        key_algorithm: Kind of new key pairs.
        generation: Changes when evidence may say something new; sessions then begin anew.
        oldest: The oldest protocol to go down to if the KBS speaks nothing newer, whatever it
            loses; None for what loses nothing.
        transport: Instead of the network.

    Attributes:
        authenticated: Whether another one that answers instead is found out.
    """

    def __init__(
        self,
        url: str,
        source: EvidenceSource | TokenSource,
        *,
        ca_file: Path | None = None,
        ca: str | None = None,
        init_data: kbs.InitData | None = None,
        key: TeeKeyPair | None = None,
        key_algorithm: str = EC_P256,
        generation: Callable[[], int] = lambda: 0,
        oldest: Generation | None = None,
        transport: Transport | None = None,
    ) -> None:
        ca = ca if ca_file is None else read_ca(ca_file)
        address = address_of(url)
        self.authenticated = address.authenticated
        self._token_keys = address.token_keys
        self._server = open_server(address, ca=ca, transport=transport)
        self._denied: Session | None = None
        self._sessions: SessionSource
        if isinstance(source, TokenSource):
            self._sessions = AgentSessions(str(address), source)
        else:
            self._sessions = OwnSessions(
                self._server,
                source,
                init_data=init_data,
                key=key,
                key_algorithm=key_algorithm,
                generation=generation,
                oldest=oldest,
                token_keys=self._token_keys,
            )

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._server.__aexit__(*exc_info)

    async def attest(self) -> str:
        """Return an EAR token, from the present session or a new one.

        Raises:
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: it does not answer.
            ProtocolError: it answers something else than its protocol.
        """
        return (await self.session()).token

    async def session(self, *, ended: Session | None = None) -> Session:
        """Return the present session, or open a new one.

        Args:
            ended: A session that the KBS does not know any more.
        """
        return await self._sessions.session(ended=ended)

    async def get_resource(self, uri: kbs.ResourceUri) -> bytes:
        """Fetch and decrypt a resource.

        A session that ended on the way is renewed once; no other refusal is tried again.
        After a denial the next call shows new evidence: what the KBS thinks of a machine is
        as old as the session, and its operator may have changed that.

        Raises:
            NotFoundError: there is no such resource.
            AccessDeniedError: the KBS's policy says no.
            AuthenticationError: the KBS does not accept our evidence.
            IntegrityError: the answer does not decrypt with our key, or nothing shows that it is
                of the KBS that the address names.
            UnreachableError: it does not answer.
            ProtocolError: it answers something else than its protocol.
        """
        session = await self.session(ended=self._denied)
        nonce, answer = await self._get(uri, session)
        if session_ended(answer):
            session = await self.session(ended=session)
            nonce, answer = await self._get(uri, session)
        if answer.status != OK:
            error = refusal(self._server, answer, f"the resource {uri}")
            if isinstance(error, AccessDeniedError):
                self._denied = session
            raise error
        self._check_proof(uri, session, nonce, answer)
        response: kbs.Response = decode(self._server, answer, kbs.Response, f"the resource {uri}")
        try:
            return session.decrypt(response)
        except FormatError as error:
            raise ProtocolError(f"the KBS at {self.url} sent {uri}, but {error.message}") from error
        except IntegrityError as error:
            raise IntegrityError(
                f"the KBS at {self.url} sent {uri}, but it does not decrypt with our key"
            ) from error

    async def _get(self, uri: kbs.ResourceUri, session: Session) -> tuple[str, Answer]:
        """Return what proves that an answer is one to this question, and the answer."""
        nonce = base64url.encode(secrets.token_bytes(proof.NONCE_BYTES))
        asked = {proof.NONCE_HEADER: nonce} if self._token_keys else {}
        headers = {**proof_header(session), **asked}
        return nonce, await self._server.request("GET", f"{BASE}/{uri.route}", headers=headers)

    def _check_proof(
        self, uri: kbs.ResourceUri, session: Session, nonce: str, answer: Answer
    ) -> None:
        if not self._token_keys:
            return
        resource = f"{uri.plugin}/{uri.path}"
        signed = proof.content(nonce, resource, session.key.public_jwk(), answer.body)
        shown = answer.headers.get(proof.PROOF_HEADER)
        try:
            detached.verify(shown, signed, self._token_keys)
        except (FormatError, AuthenticationError) as error:
            problem = error.message if shown else "it is not signed"
            raise IntegrityError(
                f"the KBS at {self.url} sent {uri}, but is not the one that was named by its token "
                f"key: {problem}",
                hint="somebody answers in its place, it has a new key, or it is one that does not "
                "sign resources (Trustee's, or one with an attestation service elsewhere)",
            ) from error
