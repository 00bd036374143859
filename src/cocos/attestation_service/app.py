# SPDX-License-Identifier: Apache-2.0
"""The attestation service on HTTP, as Trustee's restful-as: evidence in, a bare token out.

Policies are not set here: this port has no clients that we know.
"""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cocos._apart import apart
from cocos.attestation_service.messages import appraisal_request, attester, check_count, tee_of
from cocos.attestation_service.request import AppraisalRequest, Attester
from cocos.attestation_service.service import AttestationService
from cocos.errors import FormatError
from cocos.transport.web import read_json
from cocos.wire.attestation_rest import (
    ATTESTATION_ROUTE,
    CHALLENGE_ROUTE,
    AttestationBody,
    Bound,
    ChallengeBody,
    Shown,
    VerificationRequest,
)
from cocos.wire.kbs.protocol import InitData


def routes(
    service: AttestationService, *, insecure_allow_unbound_evidence: bool = False
) -> list[Route]:
    """Return the routes of an attestation service.

    Args:
        service: Appraises.
        insecure_allow_unbound_evidence: Take evidence without runtime data, too.
    """
    unbound = insecure_allow_unbound_evidence

    async def attestation(request: Request) -> Response:
        body: AttestationBody = await read_json(request, AttestationBody, "the request")
        size = len(await request.body())
        appraisal = await service.appraise(
            await apart(size, _appraisal_request, body, unbound=unbound)
        )
        return PlainTextResponse(appraisal.token)

    async def challenge(request: Request) -> Response:
        body: ChallengeBody = await read_json(request, ChallengeBody, "the request")
        await service.demand(tee_of(body.tee), {})
        return PlainTextResponse(await service.challenge())

    return [
        Route(f"/{ATTESTATION_ROUTE}", attestation, methods=["POST"]),
        Route(f"/{CHALLENGE_ROUTE}", challenge, methods=["POST"]),
    ]


def _appraisal_request(body: AttestationBody, *, unbound: bool) -> AppraisalRequest:
    check_count(body.verification_requests)
    # Beside a bound one it would pass for the same machine's.
    unbound = unbound and all(each.runtime_data is None for each in body.verification_requests)
    attesters = [_attester(each, unbound=unbound) for each in body.verification_requests]
    return appraisal_request(attesters, body.policy_ids)


def _attester(request: VerificationRequest, *, unbound: bool) -> Attester:
    bound, shown = request.runtime_data or Bound(), request.init_data or Shown()
    forms = (shown.init_data_digest, shown.init_data_toml, shown.init_data_json)
    if None not in (bound.raw, bound.structured) or len(forms) - forms.count(None) > 1:
        raise FormatError("runtime data and init data have one form each")
    init_data = None
    if shown.init_data_toml is not None:
        init_data = InitData("toml", shown.init_data_toml)
    elif shown.init_data_json is not None:
        init_data = InitData("json", shown.init_data_json)
    return attester(
        request.tee,
        request.evidence,
        raw=bound.raw,
        structured=bound.structured,
        algorithm=request.runtime_data_hash_algorithm,
        init_data=init_data,
        init_data_digest=shown.init_data_digest,
        insecure_allow_unbound=unbound,
    )
