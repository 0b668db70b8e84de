"""`python -m funcnet` is `funcnet`."""

from funcnet.cli import entry

entry()
