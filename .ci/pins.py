"""Print the lowest versions that pyproject.toml admits, as pins for pip.

    python .ci/pins.py [EXTRA …]

For instance ``pip install $(python .ci/pins.py pandas plot torch) .`` (torch at that version comes
with CUDA, several gigabytes).
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
for requirement in wanted:
    if not requirement.startswith(project["name"]):
        name, version = re.fullmatch(r"([\w.\[\]-]+)>=([\w.]+)", requirement).groups()
        print(f"{name}=={version}")
