"""`python -m fmnist_fast` is the command `fmnist-fast`."""

import sys

from .cli import main

sys.exit(main())
