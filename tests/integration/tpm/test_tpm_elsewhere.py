# SPDX-License-Identifier: Apache-2.0
"""A TPM is challenged by an attestation service that is another server."""

from pathlib import Path

import pytest
from _attestation import attestation_server
from _boot import CMDLINE, INIT_DATA, boot, reference_values, start
from _kbs import kbs_in_process
from _rcar import Handshake, claims, denial
from _tpm import Tpm, TpmCa

from cocos._clock import system_clock
from cocos.wire.kbs.protocol import ResourcePath

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo")
SECRET = b"0123456789abcdef0123456789abcdef"


async def test_a_challenge_travels_there_and_back(ca: TpmCa, tpm: Tpm, tmp_path: Path) -> None:
    async with (
        attestation_server(tmp_path, tpm_ek_ca=(ca.certificate,)) as address,
        kbs_in_process(tmp_path / "kbs", allow_sample=False, attestation=address) as kbs,
    ):
        kbs.now = system_clock()
        async with kbs.admin() as admin:
            await admin.set_resource(KEY, SECRET)
            await admin.register_reference_values(reference_values(boot()))
        await start(tpm)
        guest = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
        evidence = await guest.evidence(cmdline=CMDLINE)
        answer = await guest.attest(evidence)
        assert answer.status_code == 200, answer.text
        assert await guest.read(str(KEY)) == SECRET
        shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
        assert shown["ak_trusted"] == "manager-ca"
        # The secret of one session is worth nothing in another.
        other = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
        assert other.challenge is not None
        stolen = await other.evidence(cmdline=CMDLINE)
        again = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
        found = await denial(kbs, await again.attest(stolen))
        assert any(check.startswith("tpm.") for check in found)
