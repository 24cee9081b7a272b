"""`python -m shmgemm` is the `shmgemm` command."""

import sys

from .cli import main

sys.exit(main())
