# SPDX-License-Identifier: Apache-2.0
"""Examples at the end of ``--help``: every command has one that can be typed as it stands."""

from typing import Final

_KEY: Final = "--auth-private-key kbs-admin.key"

EXAMPLES: Final = {
    "api-server-rest": "api-server-rest --features all",
    "attestation-agent": "AA_KBC_PARAMS=cc_kbc::http://localhost:8080 attestation-agent",
    "coco-keyprovider": "coco-keyprovider --kbs http://localhost:8080 --keys ./keys",
    "coco-keyprovider once": "coco-keyprovider --keys ./keys once < request.json",
    "cocos-agent": "AGENT_CVM_ID=1 cocos-agent --cvms-url localhost:7001 --once",
    "cocos-agent run": "cocos-agent run --manifest manifest.json --output-dir results",
    "cocos-cli": "cocos-cli doctor",
    "cocos-cli keys": "cocos-cli keys --key-type rsa -o .",
    "cocos-cli encrypt": (
        "cocos-cli encrypt --key default/key/algo-key --for manifest.json \\\n"
        "    --kbs http://localhost:8080 --auth-private-key kbs-admin.key \\\n"
        "    docker://localhost:5000/lin-reg:v1 docker://localhost:5000/encrypted-lin-reg:v1"
    ),
    "cocos-cli policy": "cocos-cli policy --for manifest.json > algo-key.rego",
    "cocos-cli result": "cocos-cli result 1.zip.jwe --private-key private.pem -o results",
    "cocos-cli checksum": "cocos-cli checksum docker://localhost:5000/lin-reg:v1",
    "cocos-cli create-vm": "cocos-cli create-vm --cvms-url localhost:7001",
    "cocos-cli remove-vm": "cocos-cli remove-vm 0f5b2c1e-5d0a-4d9b-9b0e-2f4f6f3f3d11",
    "cocos-cli env": 'eval "$(cocos-cli env)"',
    "cocos-cli doctor": "cocos-cli doctor --kbs http://localhost:8080 --registry localhost:5000",
    "cocos-cli agent": "cocos-cli agent list",
    "cocos-cli agent create": (
        "cocos-cli agent create --cvms-url localhost:7001 --kbs http://localhost:8080 --wait"
    ),
    "cocos-cli agent list": "cocos-cli agent list --manager-url http://localhost:7020",
    "cocos-cli agent show": "cocos-cli agent show 0f5b2c1e-5d0a-4d9b-9b0e-2f4f6f3f3d11",
    "cocos-cli agent logs": "cocos-cli agent logs -f 0f5b2c1e-5d0a-4d9b-9b0e-2f4f6f3f3d11",
    "cocos-cli agent remove": "cocos-cli agent remove 0f5b2c1e-5d0a-4d9b-9b0e-2f4f6f3f3d11",
    "cocos-cli collateral": "cocos-cli collateral list",
    "cocos-cli collateral fetch": "cocos-cli collateral fetch amd/crl/vcek/milan",
    "cocos-cli collateral list": "cocos-cli collateral list --collateral ./collateral",
    "cocos-cli collateral export": "cocos-cli collateral export collateral.tar",
    "cocos-cli collateral import": "cocos-cli collateral import collateral.tar",
    "cocos-cli computation": "cocos-cli computation digest manifest.json",
    "cocos-cli computation digest": "cocos-cli computation digest manifest.json",
    "cocos-cli secret": "cocos-cli secret public-key --signing-key owner/private.pem > owner.jwk",
    "cocos-cli secret public-key": (
        "cocos-cli secret public-key --signing-key owner/private.pem > owner.jwk"
    ),
    "cocos-cli secret vault": (
        "cocos-cli secret vault kbs:///default/secret/1 \\\n"
        "    --signing-key owner/private.pem --kid kbs:///default/signing-key/owner"
    ),
    "cocos-cli secret envelope": (
        "cocos-cli secret envelope --key default/key/1 \\\n"
        "    --signing-key owner/private.pem --kid kbs:///default/signing-key/owner < secret.txt"
    ),
    "cocos-cli evidence": "cocos-cli evidence show evidence.json --tee snp",
    "cocos-cli evidence verify": (
        "cocos-cli evidence verify report.bin --tee snp --certificate vcek.pem --no-report-data"
    ),
    "cocos-cli evidence show": "cocos-cli evidence show quote.bin --tee tdx",
    "cocos-cli image": "cocos-cli image build",
    "cocos-cli image build": "cocos-cli image build --debug-image -o ./image",
    "cocos-cli image inspect": "cocos-cli image inspect ./image",
    "cocos-manager": "cocos-manager --backend qemu --memory 4G --cpus 4",
    "cocos-manager tpm-ca": "cocos-manager tpm-ca > tpm-ca.pem",
    "confidential-data-hub": "confidential-data-hub --socket 127.0.0.1:50000",
    "cvms-test": "cvms-test -once -manifest manifest.json -public-key public.pem",
    "grpc-as": "grpc-as --socket 127.0.0.1:50004 --storage ./attestation",
    "kbs": (
        "kbs --certificate kbs.crt --private-key kbs.key --auth-public-key kbs-admin.pub \\\n"
        "    --storage ./kbs"
    ),
    "kbs rekey": "kbs --storage ./kbs --storage-key file:new.key --storage-key file:old.key rekey",
    "kbs token-key": "kbs --storage ./kbs token-key list",
    "kbs token-key list": "kbs --storage ./kbs token-key list",
    "kbs token-key rotate": "kbs --storage ./kbs token-key rotate --lead 3600",
    "kbs token-key revoke": "kbs --storage ./kbs token-key revoke tc3FQ2T9qbFbTtF3vUXk",
    "kbs-client": f"kbs-client --kbs http://localhost:8080 config {_KEY} list-resources",
    "kbs-client admin-token": f"kbs-client admin-token {_KEY} > admin-token",
    "kbs-client attest": "kbs-client attest --tee-key-file tee.key > token",
    "kbs-client get-resource": (
        "kbs-client get-resource --resource default/key/1 | base64 -d > 1.key"
    ),
    "kbs-client token-keys": "kbs-client --kbs https://kbs.example:8080 token-keys > jwks.json",
    "kbs-client explain": f"kbs-client explain 0123456789abcdef {_KEY}",
    **{
        f"kbs-client config{line}": f"kbs-client config {_KEY}{line or ' list-resources'}{rest}"
        for line, rest in (
            ("", ""),
            (" set-resource", " \\\n    --resource default/key/1 --resource-file 1.key"),
            (" delete-resource", " --resource default/key/1"),
            (" list-resources", " --prefix default/key/"),
            (
                " set-resource-policy",
                " \\\n    --id resource/default/key/algo-key --for manifest.json",
            ),
            (" get-resource-policy", " \\\n    --id resource/default/key/algo-key"),
            (" list-resource-policies", ""),
            (" delete-resource-policy", " \\\n    --id resource/default/key/algo-key"),
            (" set-attestation-policy", " \\\n    --id default_cpu --policy-file cpu.rego"),
            (" get-attestation-policy", " --id default_cpu"),
            (" list-attestation-policies", ""),
            (" delete-attestation-policy", " --id default_cpu"),
            (" set-sample-reference-value", " svn 1 --as-integer"),
            (" set-reference-values", " reference-values.json"),
            (" get-reference-value", " --id tpm_pcr11"),
            (" get-reference-values", " > reference-values.json"),
            (" list-reference-values", ""),
            (" delete-reference-value", " --id tpm_pcr11"),
            (" set-tpm-eks", " --add fingerprints.txt"),
            (" list-tpm-eks", ""),
            (" delete-tpm-ek", f" \\\n    {'ab' * 32}"),
        )
    },
    "kbs-client config check-policy": "kbs-client config check-policy --policy-file algo-key.rego",
    "kbs-client audit": f"kbs-client audit {_KEY} show",
    "kbs-client audit show": f"kbs-client audit {_KEY} show --event denied --event released",
    "kbs-client audit checkpoint": f"kbs-client audit {_KEY} checkpoint > checkpoint.txt",
    "kbs-client audit public-key": f"kbs-client audit {_KEY} public-key > audit.pub",
    "kbs-client audit export": f"kbs-client audit {_KEY} export audit.jsonl",
    "kbs-client audit verify": (
        f"kbs-client audit {_KEY} verify \\\n"
        "    --checkpoint-key audit.pub --checkpoint checkpoint.txt"
    ),
    "grpcurl": "grpcurl -plaintext localhost:7020 list",
}
"""Command → how it is typed, in the folder of docs/guide.md."""
