"""What the system, the store and a pattern refuse, as a BuildError that names the task. Knows no operation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import BuildError
from cache.errors import CacheError
from grammar.errors import DockerfileError


@contextmanager
def reported(task: str) -> Iterator[None]:
    """Turn what goes wrong in the block into a BuildError: "failed to <task>: <reason> at <path>"."""
    try:
        yield
    except OSError as error:
        where = f' at "{os.fsdecode(error.filename)}"' if isinstance(error.filename, str | bytes) else ""
        raise BuildError(f"failed to {task}: {os.strerror(error.errno or 0).lower()}{where}") from error
    except CacheError as error:
        raise BuildError(f"failed to {task}: {error}", hint=error.hint) from error
    except DockerfileError as error:
        raise BuildError(f"failed to {task}: {error.message}", hint=error.hint) from error
    except RecursionError as error:
        raise BuildError(f"failed to {task}: directories are nested too deeply") from error
