# SPDX-License-Identifier: Apache-2.0
"""Whatever the order of steps and the passing of time, a nonce is appraised at most once."""

import base64
import datetime as dt

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cocos.errors import AuthenticationError
from cocos.kbs import session as rcar
from cocos.wire.kbs.protocol import Request, Tee

START = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
LIFETIME = dt.timedelta(minutes=5)


class OneSession(RuleBasedStateMachine):
    session: rcar.Session
    now: dt.datetime
    nonce: str

    def __init__(self) -> None:
        super().__init__()
        self.appraisals = 0
        self.tokens: list[str] = []

    @initialize(nonce=st.binary(min_size=32, max_size=32), tee=st.sampled_from(Tee))
    def start(self, nonce: bytes, tee: Tee) -> None:
        self.now = START
        self.nonce = base64.b64encode(nonce).decode()
        self.session, _ = rcar.start(
            Request("0.4.0", tee, ""), nonce=nonce, now=self.now, lifetime=LIFETIME
        )

    @rule(seconds=st.integers(0, 200))
    def wait(self, seconds: int) -> None:
        self.now += dt.timedelta(seconds=seconds)

    @rule(right=st.booleans(), other=st.text(max_size=50), holds=st.booleans())
    def attest(self, right: bool, other: str, holds: bool) -> None:
        nonce = self.nonce if right else other
        allowed = (
            nonce == self.nonce
            and isinstance(self.session, rcar.Authed)
            and self.now < START + LIFETIME
        )
        try:
            spent = rcar.spend(self.session, nonce, self.now)
        except AuthenticationError:
            assert not allowed
            return
        assert allowed
        self.appraisals += 1
        self.session = spent
        if holds:
            self.tokens.append(f"token{self.appraisals}")
            self.session = rcar.attested(spent, self.tokens[-1])

    @rule()
    def use(self) -> None:
        try:
            token = rcar.use(self.session, self.now).token
        except AuthenticationError:
            assert not self.tokens or self.now >= START + LIFETIME
            return
        assert [token] == self.tokens
        assert self.now < START + LIFETIME

    @rule()
    def store(self) -> None:
        self.session = rcar.load(rcar.dump(self.session))

    @invariant()
    def at_most_one_appraisal(self) -> None:
        assert self.appraisals <= 1


TestOneSession = OneSession.TestCase
