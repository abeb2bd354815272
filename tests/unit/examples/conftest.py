"""The sample agents are a folder of modules, not a package: put it where imports look."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "agents"))
