"""The folder of the tests is importable for the programs that lie in it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
