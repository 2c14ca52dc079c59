"""The pages' code blocks are read by a module next to the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
