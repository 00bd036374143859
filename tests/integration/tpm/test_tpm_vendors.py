# SPDX-License-Identifier: Apache-2.0
"""A TPM that somebody holds in the hand: certified by its vendor, its PCRs extended at will.

Issue 8, B3. Every TPM here is on a machine without our firmware: software has extended PCR 4,
11, 12 and 14 to the published reference values. What refuses it is that the operator knows
who vouches for which TPM.
"""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _attestation import attestation_server
from _boot import CMDLINE, INIT_DATA, boot, event_of, manifest, reference_values, start
from _kbs import InProcessKbs, kbs_in_process
from _rcar import Handshake, claims, denial
from _tpm import Tpm, TpmCa, b64, running_tpm
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._clock import system_clock
from cocos.evidence import endorsement
from cocos.wire import json
from cocos.wire.kbs.protocol import ResourcePath
from cocos.wire.manifest.computation import Computation

pytestmark = pytest.mark.integration

KEY = ResourcePath.parse("default/key/algo")
SECRET = b"0123456789abcdef0123456789abcdef"
PINNED = reference_values(boot(), 0, 7)


@pytest.fixture
def vendor(tmp_path: Path) -> TpmCa:
    return TpmCa(tmp_path / "vendor", vendor=True)


@pytest.fixture
async def bought(vendor: TpmCa, tmp_path: Path) -> AsyncIterator[Tpm]:
    """A TPM from a shop, with the log and the PCRs of a genuine guest."""
    async with running_tpm(await vendor.manufacture(), tmp_path / "bought") as tpm:
        await start(tpm)
        await tpm.measure(event_of(Computation.from_json(json.encode(manifest()))))
        yield tpm


def own_fingerprint(tpm: Tpm) -> str:
    key = x509.load_der_x509_certificate(tpm.read("ek.der")).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return endorsement.fingerprint(key)


async def set_up(kbs: InProcessKbs, values: Mapping[str, Any]) -> None:
    kbs.now = system_clock()
    async with kbs.admin() as admin:
        await admin.set_resource(KEY, SECRET)
        await admin.register_reference_values({**reference_values(boot()), **values})


async def outcome(kbs: InProcessKbs, tpm: Tpm) -> set[str]:
    """Ask for the key; return the checks that kept it back, none if it came out."""
    guest = await Handshake.opened(kbs, tpm, tpm.params, init_data=INIT_DATA)
    answer = await guest.attest(await guest.evidence(cmdline=CMDLINE))
    assert answer.status_code == 200, answer.text
    status = claims(guest.token)["ear.status"]
    answer = await guest.get(str(KEY))
    if answer.status_code == 200:
        assert status == "affirming"
        assert await guest.read(str(KEY)) == SECRET
        return set()
    assert status != "affirming"
    return {check for check in await denial(kbs, answer) if check.startswith("cpu0.tpm.")}


async def test_a_vendors_tpm_counts_when_it_is_named_and_its_firmware_is_known(
    vendor: TpmCa, bought: Tpm, tmp_path: Path
) -> None:
    own = own_fingerprint(bought)
    (tmp_path / "kbs").mkdir()
    kbs_of = kbs_in_process(
        tmp_path / "kbs", allow_sample=False, tpm_vendor_ca=(vendor.certificate,)
    )
    named, firmware = {"cpu0.tpm.ek"}, {"cpu0.tpm.pcr00", "cpu0.tpm.pcr07"}
    wrong = {name: ["77" * 32] for name in ("tpm_pcr00", "tpm_pcr07")}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, named | firmware),
        ({"trusted_ek": [own]}, firmware),
        ({"trusted_ek": []}, named | firmware),
        ({"tpm_pcr00": PINNED["tpm_pcr00"]}, named | {"cpu0.tpm.pcr07"}),
        ({"tpm_pcr07": PINNED["tpm_pcr07"]}, named),
        ({"trusted_ek": ["00" * 32, own[::-1], own + own, own[:-1], None, {}]}, named),
        ({"trusted_ek": own}, named),  # not a list: nothing that was meant is known
        ({"trusted_ek": ["00" * 32, own]}, set()),
        (wrong, firmware),
        ({**PINNED, "tpm_pcr07": wrong["tpm_pcr07"]}, {"cpu0.tpm.pcr07"}),
        (PINNED, set()),
        ({"trusted_ek": ["00" * 32]}, named),
    ]
    async with kbs_of as kbs:
        await set_up(kbs, {})
        for values, expected in cases:
            async with kbs.admin() as admin:
                await admin.register_reference_values(values)
            assert await outcome(kbs, bought) == expected, values


async def test_who_is_struck_off_meanwhile_gets_nothing(
    vendor: TpmCa, bought: Tpm, tmp_path: Path
) -> None:
    """Between the handshake and the evidence: it is what counts now that counts."""
    (tmp_path / "kbs").mkdir()
    async with kbs_in_process(
        tmp_path / "kbs", allow_sample=False, tpm_vendor_ca=(vendor.certificate,)
    ) as kbs:
        await set_up(kbs, {**PINNED, "trusted_ek": [own_fingerprint(bought)]})
        guest = await Handshake.opened(kbs, bought, bought.params, init_data=INIT_DATA)
        evidence = await guest.evidence(cmdline=CMDLINE)
        async with kbs.admin() as admin:
            await admin.delete_reference_value("trusted_ek")
        assert (await guest.attest(evidence)).status_code == 200
        assert "cpu0.tpm.ek" in await denial(kbs, await guest.get(str(KEY)))


async def test_an_attestation_service_elsewhere_knows_them_too(
    vendor: TpmCa, bought: Tpm, tmp_path: Path
) -> None:
    """Named in a file of its own; what a policy sees says who vouches, and for which TPM."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"# the one in the rack\n{own_fingerprint(bought).upper()}\n")
    async with (
        attestation_server(
            tmp_path, tpm_vendor_ca=(vendor.certificate,), tpm_ek_allow=(allowed,)
        ) as address,
        kbs_in_process(tmp_path / "kbs", allow_sample=False, attestation=address) as kbs,
    ):
        await set_up(kbs, {})
        assert await outcome(kbs, bought) == {"cpu0.tpm.pcr00", "cpu0.tpm.pcr07"}
        async with kbs.admin() as admin:
            await admin.register_reference_values(PINNED)
        guest = await Handshake.opened(kbs, bought, bought.params, init_data=INIT_DATA)
        assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
        assert await guest.read(str(KEY)) == SECRET
        shown = claims(guest.token)["ear.veraison.annotated-evidence"]["tpm"]
    ca = x509.load_pem_x509_certificate(vendor.certificate.read_bytes())
    assert {name: shown[name] for name in shown if name.startswith(("ek_", "ak_trusted"))} == {
        "ak_trusted": "vendor-ca",
        "ek_allowed": True,
        "ek_ca": "CN=swtpm-localca",
        "ek_ca_fingerprint": ca.fingerprint(hashes.SHA256()).hex(),
        "ek_fingerprint": own_fingerprint(bought),
    }


async def test_a_tpm_that_both_have_certified_is_what_its_certificate_says(
    ca: TpmCa, tpm: Tpm, vendor: TpmCa, tmp_path: Path
) -> None:
    """The TPM of a manager's VM, and a certificate of a vendor's CA for its very key."""
    await vendor.manufacture()
    authority = x509.load_pem_x509_certificate(vendor.certificate.read_bytes())
    key = serialization.load_pem_private_key((vendor.folder / "signkey.pem").read_bytes(), None)
    genuine = x509.load_der_x509_certificate(tpm.read("ek.der"))
    twin = (
        x509.CertificateBuilder(extensions=list(genuine.extensions))
        .subject_name(genuine.subject)
        .issuer_name(authority.subject)
        .public_key(genuine.public_key())
        .serial_number(1)
        .not_valid_before(genuine.not_valid_before_utc)
        .not_valid_after(genuine.not_valid_after_utc)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]  # RSA
    )
    await start(tpm)
    (tmp_path / "kbs").mkdir()
    async with kbs_in_process(
        tmp_path / "kbs",
        allow_sample=False,
        tpm_ek_ca=[ca.certificate],
        tpm_vendor_ca=(vendor.certificate,),
    ) as kbs:
        await set_up(kbs, {})
        assert await outcome(kbs, tpm) == set()
        shown = {**tpm.params, "ek_certificate": b64(twin.public_bytes(serialization.Encoding.DER))}
        guest = await Handshake.opened(kbs, tpm, shown, init_data=INIT_DATA)
        assert (await guest.attest(await guest.evidence(cmdline=CMDLINE))).status_code == 200
        assert "cpu0.tpm.ek" in await denial(kbs, await guest.get(str(KEY)))


async def test_a_vendor_of_the_same_name_is_another_one(
    vendor: TpmCa, bought: Tpm, tmp_path: Path
) -> None:
    """It is the signature that counts."""
    other = TpmCa(tmp_path / "other-vendor", vendor=True)
    await other.manufacture()
    (tmp_path / "kbs").mkdir()
    async with kbs_in_process(
        tmp_path / "kbs", allow_sample=False, tpm_vendor_ca=(other.certificate,)
    ) as kbs:
        await set_up(kbs, {**PINNED, "trusted_ek": [own_fingerprint(bought)]})
        findings = await denial(kbs, await Handshake(kbs, bought, bought.params).auth())
    finding = findings["tpm.ek-certificate"]
    assert finding["actual"] == finding["expected"] == "CN=swtpm-localca"
