"""`python -m funcnet` is `funcnet`."""

import sys

from funcnet.cli import main

sys.exit(main())
