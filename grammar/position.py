"""Places in a Dockerfile: ranges of lines and columns, both counted from 1 and both ends included.

Knows nothing of what stands there. It imports no dataclasses, because errors are on the warm path.
"""

from typing import NamedTuple


class Range(NamedTuple):
    """Lines of the source; a column of 0 means that it is not known."""

    start_line: int
    end_line: int
    start_column: int = 0
    end_column: int = 0
