# SPDX-License-Identifier: Apache-2.0
"""The guest's programs import nothing that the guest does not have: found before an image is."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from cocos.image import spec

LOCK = Path(spec.__file__).parent / "guest" / "requirements.txt"
OF_DEBIAN = {"tpm2-pytss", "pycparser", "packaging", "pyyaml"}


def test_the_guests_programs_import_what_is_locked_for_the_guest() -> None:
    modules = [*spec.PROGRAMS.values(), "cocos.image.unpack"]
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    owners = packages_distributions()
    needed = {each.lower() for name in loaded for each in owners.get(name, [])}
    locked = set(re.findall(r"^([a-z0-9_.-]+)==", LOCK.read_text(), re.MULTILINE))
    assert needed - locked - OF_DEBIAN <= {"cocos"}


def test_they_import_only_packages_of_ours_that_are_in_the_image() -> None:
    modules = [*spec.PROGRAMS.values(), "cocos.image.unpack"]
    code = f"import sys, json, {', '.join(modules)}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    ours = [name.split(".") for name in json.loads(done.stdout) if name.startswith("cocos.")]
    rooms = {parts[1] for parts in ours if len(parts) > 2}
    assert rooms - {"image"} <= set(spec.OUR_PACKAGES)
