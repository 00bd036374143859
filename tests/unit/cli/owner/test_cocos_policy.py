# SPDX-License-Identifier: Apache-2.0
"""``cocos-cli policy``, and what its words leave open."""

import json
from pathlib import Path
from typing import Any

import pytest
from _boot import ALGORITHM, manifest, measured
from _owner import PUBLIC as PEM
from typer.testing import CliRunner

from cocos.cli import _terms as terms
from cocos.cli.owner.command import app
from cocos.cvms.order import Order, consumer_key, from_flags
from cocos.errors import CocosError, UsageError
from cocos.policy.engine import Policy
from cocos.wire.manifest.computation import Computation

PUBLIC = consumer_key(PEM)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    file = tmp_path / "m.json"
    file.write_text(json.dumps(manifest()))
    return file


def test_it_prints_a_policy_that_compiles(written: Path) -> None:
    done = CliRunner().invoke(app, ["policy", "--for", str(written)])
    assert done.exit_code == 0
    text = done.stdout
    Policy(text)
    assert text.startswith(f"# Made by: cocos-cli policy --for {written}\n")
    assert Computation.from_json(written.read_bytes()).digest().hex() in text
    # The manifest names nobody who could open the result.
    assert "result_consumers" in done.stderr


def test_the_file_s_name_is_no_code(written: Path) -> None:
    hostile = written.rename(written.with_name('m\n}\nallow := true #"`'))
    text = terms.Word(manifests=(hostile,)).policy()
    Policy(text)
    assert "\nallow := true" not in text


@pytest.mark.parametrize(
    ("word", "left_open"),
    [
        (terms.Word(algorithms=(ALGORITHM,)), "who gets the result"),
        (terms.Word(images=(Path("x"),)), "machine of this image"),
        (terms.Word(any_computation=True), "machine that the KBS trusts"),
        (terms.Word(), "machine that the KBS trusts"),
    ],
    ids=str,
)
def test_what_it_leaves_open_is_said(word: terms.Word, left_open: str) -> None:
    assert left_open in word.caveat()


@pytest.mark.parametrize(
    "words",
    [
        ["--any-computation", "--for", "m.json"],
        ["--any-computation", "--for-algorithm", ALGORITHM],
        ["--for", "m.json", "--for-algorithm", ALGORITHM],
        [],
    ],
    ids=" ".join,
)
def test_contradictions_and_silence(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["policy", *words])
    assert isinstance(done.exception, UsageError)
    assert "--for" in (done.exception.message + (done.exception.hint or ""))


@pytest.mark.parametrize(
    ("more", "allowed"),
    [
        pytest.param({}, True, id="as the guide writes it"),
        pytest.param({"dataset_source_urls": ()}, True, id="without data"),
        pytest.param({"algo_args": "cat,/cocos/datasets/iris.csv"}, False, id="arguments"),
        pytest.param({"agent_log_level": "debug"}, False, id="output shown"),
    ],
)
def test_the_guide_s_order_under_its_policy(more: dict[str, Any], allowed: bool) -> None:
    """The flags of cvms-test, which leave images to the registry, under --for-algorithm."""
    order = Order(
        **{
            "algo_type": "oci-image",
            "algo_source_url": "docker://localhost:5000/encrypted-lin-reg:v1.0",
            "algo_kbs_path": "default/key/algo-key",
            "dataset_source_urls": ("docker://localhost:5000/encrypted-iris:v1.0",),
            "agent_log_level": "",
            **more,
        }
    )
    event = measured(from_flags(order, PUBLIC), consumers=[PUBLIC])
    evidence = {"tpm": {"computations": [event.claims()]}}
    cpu = {"ear.status": "affirming", "ear.veraison.annotated-evidence": evidence}
    text = terms.Word(algorithms=(f"sha256:{ALGORITHM}",)).policy()
    said = Policy(text).evaluate(["allow"], {"submods": {"cpu0": cpu}})
    assert said["allow"] is allowed


def test_unpinned_manifests_are_refused(tmp_path: Path) -> None:
    for change in ({"algorithm": ""}, {"dataset": ""}):
        file = tmp_path / "m.json"
        file.write_text(json.dumps(manifest(**change)))
        with pytest.raises(CocosError, match="a registry would choose") as caught:
            terms.Word(manifests=(file,)).policy()
        assert "cocos-cli checksum" in (caught.value.hint or "")
