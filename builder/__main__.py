"""`python -m builder` is `pybuild`."""

from builder.cli import script

raise SystemExit(script())
