# SPDX-License-Identifier: Apache-2.0
"""Appraisal: evidence → claims → verdict of a policy → signed token."""

import asyncio
import base64
import datetime as dt
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from cocos._apart import apart
from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.attestation_service.annotate import compose, parse_init_data
from cocos.attestation_service.challenges import Asked, Challenges
from cocos.attestation_service.config import AttestationServiceConfig
from cocos.attestation_service.corim import Makers
from cocos.attestation_service.policies import attestation_policies
from cocos.attestation_service.reference_values import ReferenceValue, ReferenceValues
from cocos.attestation_service.request import AppraisalRequest, Attester
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto.signature import SigningPublicKey
from cocos.errors import ConfigError, EvidenceError, Finding, FormatError, NotFoundError
from cocos.policy.appraisal import UNBOUND_EVIDENCE, Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import PolicyEngine
from cocos.stores.base import Store
from cocos.tokens.ear import Submodule, issue
from cocos.verifiers import Expected, Kept, Verifier, VerifierTable, verifier_table
from cocos.wire.kbs.protocol import Tee, without_devices

NONCE_BYTES: Final = 32

_MACHINE: Final = "cpu"
_RULES: Final = ("trust_claims", "extensions", "findings")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Evidence that holds, and what policies say of it.

    Attributes:
        token: Signed EAR.
        claims: Submodule → annotated evidence, as its policy saw it.
        findings: Why something is not affirming; empty when all is.
    """

    token: str
    claims: JsonObject
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Verified:
    verifier: Verifier
    name: str
    category: str
    claims: JsonObject
    annotated: JsonObject
    insecure: tuple[str, ...]


class AttestationService:
    """Verifies evidence, asks the policies and issues tokens, in this process."""

    def __init__(
        self,
        store: Store,
        *,
        keys: SigningKeys,
        config: AttestationServiceConfig,
        engine: PolicyEngine,
        clock: Clock,
        verifiers: VerifierTable | None = None,
        makers: Sequence[SigningPublicKey] = (),
    ) -> None:
        self._config = config
        self._keys = keys
        self._clock = clock
        self._engine = engine
        self._policies = attestation_policies(store, engine)
        self._values = ReferenceValues(
            store,
            clock=clock,
            sample=config.sample_extractor,
            makers=Makers(makers, config.insecure_allow_unsigned_corim),
        )
        lifetime = dt.timedelta(minutes=config.challenge_minutes)
        self._challenges = Challenges(store, clock=clock, lifetime=lifetime)
        self._base: tuple[JsonObject, BaseDocuments] | None = None
        self._verifiers = verifiers or verifier_table(
            insecure_allow_sample=config.insecure_allow_sample, clock=clock
        )
        if config.insecure_allow_sample:
            _log.warning("attestation.insecure", sample_evidence="is believed; it proves nothing")
        if config.insecure_allow_unsigned_corim:
            _log.warning("attestation.insecure", unsigned_corim="is believed, whoever wrote it")

    async def challenge(self) -> str:
        """Return a fresh nonce: base64 of 32 random bytes."""
        return base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode("ascii")

    async def demand(self, tee: Tee, extra_params: Any) -> Asked | None:
        """Return what to ask of an attester, if it is more than any nonce.

        Args:
            tee: Primary attester.
            extra_params: Of its request; the member of the TEE's name is its verifier's.

        Raises:
            EvidenceError: what it announced can never become evidence that holds. A TEE
                without verifier is no error yet: its evidence will be refused.
        """
        params = extra_params if isinstance(extra_params, dict) else {}
        announced = params.get(tee.value)
        verifier = self._verifiers.get(tee)
        if tee is Tee.SE and verifier is None:
            raise _no_challenge_for_se(params.get("supported-hash-algorithms"))
        if verifier is None or announced is None:
            return None
        try:
            challenge = await self._challenges.begin(tee, await self.challenge())
            values = await self._values.all()
            demand = await verifier.challenge(announced, values, challenge.secret)
        except EvidenceError as error:
            _log.info("attestation.refused", tee=tee.value, findings=error.findings)
            raise
        return None if demand is None else challenge.asked(demand.params, demand.state)

    async def appraise(self, request: AppraisalRequest) -> Appraisal:
        """Verify evidence and issue a token.

        A token is issued whatever the policies say of genuine evidence; relying parties
        look at its ``ear.status``.

        1. The init data of each attester is parsed, its digest computed.
        2. Its evidence must be genuine and bound to the runtime data.
        3. Each one's policy turns claims into a trustworthiness vector.
        4. All of it is signed.

        Raises:
            EvidenceError: evidence does not hold; findings of all attesters at once, also
                of the policies for those whose evidence does.
        """
        values = await self._values.all()
        base = self._base_documents(values)
        verified, failures = await self._verify(request, values)
        submodules: dict[str, Submodule] = {}
        findings: list[Finding] = []
        for part in verified:
            verdict = await self._judge(part, request.policy_id, values, base)
            findings += _prefixed(part.name, verdict.findings)
            submodules[part.name] = Submodule(
                verdict=verdict,
                policy_id=request.policy_id,
                evidence=self._for_token(part.annotated),
                insecure=part.insecure,
            )
        tee = request.attesters[0].tee
        if failures:
            raise _refusal(tee, failures, findings) from failures[0]
        if findings:
            _log.info("attestation.not-affirming", tee=tee.value, findings=findings)
        # Evidence may be long, and all of it is in the token.
        token = await asyncio.to_thread(
            issue,
            submodules,
            signer=await self._keys.signer(),
            issuer=self._config.issuer(),
            now=self._clock(),
        )
        statuses = {name: part.verdict.status.value for name, part in submodules.items()}
        _log.info("attestation.appraised", tee=tee.value, **statuses)
        return Appraisal(token, {part.name: part.annotated for part in verified}, tuple(findings))

    async def set_policy(self, policy_id: str, text: str) -> tuple[str, ...]:
        """Store an attestation policy, such as ``default_cpu``.

        Returns:
            Warnings: what its author may not have meant.

        Raises:
            FormatError: an impossible id, or a policy that can never affirm anything.
        """
        warnings = await self._policies.set(policy_id, text)
        _log.info("attestation.policy_set", policy=policy_id)
        return warnings

    async def get_policy(self, policy_id: str) -> str:
        """Return the text of a policy, stored or default, or raise NotFoundError."""
        return await self._policies.text(policy_id)

    async def policy_ids(self) -> list[str]:
        """Return the ids of all policies, stored and default."""
        return await self._policies.ids()

    async def delete_policy(self, policy_id: str) -> None:
        """Delete a stored policy, or raise NotFoundError; a default of that id holds again."""
        await self._policies.delete(policy_id)
        _log.info("attestation.policy_deleted", policy=policy_id)

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message.

        Raises:
            FormatError: not such a message.
            UnsupportedError: of a type that the operator switched off.
        """
        names = await self._values.register(message)
        _log.info("attestation.reference_values_registered", names=names)

    async def get_reference_value(self, name: str) -> Any:
        """Return a reference value, or raise NotFoundError."""
        return await self._values.get(name)

    async def find_reference_value(self, name: str) -> tuple[Any, str]:
        """Return a reference value and the tag of it, or raise NotFoundError."""
        return await self._values.find(name)

    async def set_reference_value(
        self, name: str, value: Any, *, expires: dt.datetime | None, new: bool, tag: str | None
    ) -> None:
        """Store one reference value; StateError if it is not new, or has another tag."""
        await self._values.set(name, value, expires=expires, new=new, tag=tag)
        _log.info("attestation.reference_values_registered", names=(name,))

    async def list_reference_values(self) -> tuple[ReferenceValue, ...]:
        """Return every reference value by name, also those that have expired."""
        return await self._values.list()

    async def delete_reference_value(self, name: str) -> None:
        """Delete a reference value, or raise NotFoundError."""
        await self._values.delete(name)
        _log.info("attestation.reference_value_deleted", name=name)

    async def _verify(
        self, request: AppraisalRequest, values: JsonObject
    ) -> tuple[list[_Verified], list[EvidenceError]]:
        verified: list[_Verified] = []
        failures: list[EvidenceError] = []
        count: Counter[str] = Counter()
        for number, attester in enumerate(request.attesters):
            try:
                verifier = self._verifiers.find(attester.tee)
                if number == 0 and verifier.category != _MACHINE:
                    raise _no_machine(attester.tee)
                insecure = _insecure(verifier, attester)
                kept = await self._kept(attester)
                expected = Expected.of(attester.report_data, kept, values)
                authentic = await verifier.authenticate(attester.evidence, expected)
                # Nothing that costs more comes before this.
                shown = None
                if attester.init_data is not None:
                    # A large document takes its time: others must not wait for it.
                    shown = await asyncio.to_thread(parse_init_data, attester.init_data)
                digest = attester.init_data_digest if shown is None else shown.digest
                parts = await authentic.parts(digest, verifier.category)
            except EvidenceError as error:
                failures.append(error)
                continue
            size = 0 if attester.init_data is None else len(attester.init_data.body)
            for part in parts:
                name = f"{part.category}{count[part.category]}"
                count[part.category] += 1
                annotated = await apart(
                    size, compose, attester.tee, part.claims, attester.runtime_data, shown, insecure
                )
                verified.append(
                    _Verified(verifier, name, part.category, part.claims, annotated, insecure)
                )
        return verified, failures

    async def _kept(self, attester: Attester) -> Kept | None:
        """Return what was kept of the challenge of this session; the evidence uses it up."""
        if attester.state is None:
            return None
        nonce = (attester.runtime_data or {}).get("nonce")
        return await self._challenges.redeem(attester.tee, nonce, attester.state)

    async def _judge(
        self, part: _Verified, policy_id: str, values: JsonObject, base: BaseDocuments
    ) -> Verdict:
        try:
            text = await self._policies.text(f"{policy_id}_{part.category}")
            said = await self._engine.evaluate(text, _RULES, part.annotated, base=base)
            verdict = appraise(*(said[rule] for rule in _RULES))
            explained = await asyncio.to_thread(_explained, part, verdict, values)
            if explained:
                explained += await self._explain(text, verdict, part.annotated, base)
            return replace(verdict, findings=explained)
        except (ConfigError, FormatError, NotFoundError) as error:
            _log.error("attestation.policy_failed", submodule=part.name, exc_info=error)
            failed = appraise(None)
            return replace(failed, findings=(Finding("policy", error.message),))

    async def _explain(
        self, text: str, verdict: Verdict, annotated: JsonObject, base: BaseDocuments
    ) -> tuple[Finding, ...]:
        """Say which statements of a policy made claims other than affirming."""
        asked = dict.fromkeys((_RULES[0], *(finding.check for finding in verdict.findings)))
        try:
            return await self._engine.explain(text, [*asked], annotated, base=base)
        except (ConfigError, FormatError):
            return ()

    def _base_documents(self, values: JsonObject) -> BaseDocuments:
        if self._base is None or self._base[0] is not values:
            operator = {"insecure_allow_sample": self._config.insecure_allow_sample}
            lapsed = self._values.lapsed
            self._base = values, BaseDocuments.of(values, lapsed=lapsed, operator=operator)
        return self._base[1]

    def _for_token(self, annotated: JsonObject) -> JsonObject:
        runtime = annotated.get("runtime_data_claims")
        if self._config.verbose_token or not isinstance(runtime, dict):
            return annotated
        return {**annotated, "runtime_data_claims": without_devices(runtime)}


def _insecure(verifier: Verifier, attester: Attester) -> tuple[str, ...]:
    """Return the names of what an operator takes of this attester although it proves nothing.

    Raises:
        EvidenceError: it is bound to nothing, and its verifier has no check for that.
    """
    named = (verifier.kind.value,) if verifier.insecure else ()
    if attester.report_data is not None:
        return named
    if not verifier.takes_unbound:
        raise EvidenceError(f"evidence of {verifier.kind} is not appraised unless it is bound")
    return (*named, UNBOUND_EVIDENCE)


def _no_machine(tee: Tee) -> EvidenceError:
    """Refuse a device that comes first: whoever holds it could be anybody, on any machine."""
    problem = "devices count beside the evidence of the machine that they are in"
    return EvidenceError(
        f"evidence of {tee} alone is not accepted: {problem}",
        findings=(Finding("tee", problem, tee.value, "a machine's evidence first"),),
    )


def _no_challenge_for_se(hashes: object) -> EvidenceError:
    """Say at once what an attester of IBM Secure Execution would learn after its evidence.

    Its nonce is a request that only a verifier for it can make, hashed with SHA-512.
    """
    findings = [Finding("tee", "there is no verifier that could make the challenge", Tee.SE)]
    if isinstance(hashes, list) and "sha512" not in hashes:
        shown = ", ".join(map(str, hashes))
        findings.append(Finding("supported-hash-algorithms", "se needs SHA-512", shown, "sha512"))
    return EvidenceError(
        "evidence of se cannot be verified here: this service has no verifier for it, "
        "which would have to make the challenge",
        findings=tuple(findings),
    )


def _refusal(tee: Tee, failures: list[EvidenceError], others: list[Finding]) -> EvidenceError:
    """Return one error for all attesters: whose evidence does not hold, and all else."""
    first = failures[0]
    findings = (*(finding for failure in failures for finding in failure.findings), *others)
    _log.info("attestation.refused", tee=tee.value, findings=findings)
    return EvidenceError(first.message, findings=findings, hint=first.hint)


def _explained(part: _Verified, verdict: Verdict, values: JsonObject) -> tuple[Finding, ...]:
    explain = part.verifier.explain
    return tuple(explain(each, part.claims, values) for each in verdict.findings)


def _prefixed(name: str, findings: tuple[Finding, ...]) -> list[Finding]:
    return [replace(finding, check=f"{name}.{finding.check}") for finding in findings]
