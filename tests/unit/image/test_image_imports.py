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
CODE = """
import importlib, json, sys
modules, absent = json.loads(sys.argv[1])

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"no {name} in the guest")

for name in absent:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Absent())
for name in modules:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_guests_programs_import_with_what_the_guest_has() -> None:
    locked = set(re.findall(r"^([a-z0-9_.-]+)==", LOCK.read_text(), re.MULTILINE))
    have = {normal(name) for name in locked} | {"cocos"}
    absent = [
        top
        for top, owners in packages_distributions().items()
        if not have & {normal(owner) for owner in owners}
    ]
    assert "joserfc" in absent
    told = json.dumps([[*spec.PROGRAMS.values(), "cocos.image.unpack"], absent])
    done = subprocess.run([sys.executable, "-c", CODE, told], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    ours = [name.split(".") for name in json.loads(done.stdout) if name.startswith("cocos.")]
    packages = {parts[1] for parts in ours if len(parts) > 2}
    assert packages - {"image"} <= set(spec.OUR_PACKAGES), "a package that the image lacks"
