"""Folder of the real data set, from FMNIST_FAST_DATA."""

import os
from pathlib import Path

# Read before any test changes the environment; made absolute, since some tests run elsewhere.
_REAL = os.environ.get("FMNIST_FAST_DATA")
REAL_FOLDER = Path(_REAL).resolve() if _REAL else None
