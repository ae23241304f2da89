"""What lowering asks of the world outside: which image or directory a name stands for.

The only door out of lowering. It loads nothing heavy, so that a warm build may come through it to check its bases.
"""

from collections.abc import Mapping
from typing import Protocol

from builder.plan import GitSourceOp, HttpSourceOp, ImageSourceOp, LocalSourceOp
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.platforms import Platform
from grammar.reference import parse_reference


class BaseSource(NamedTuple):
    """What a name in FROM or --from stands for. No op is an empty root; no document is a directory."""

    op: ImageSourceOp | LocalSourceOp | None
    document: Mapping[str, object] | None
    platform: Platform
    layers: int = 0


class SourceResolver(Protocol):
    """Finds images and named contexts; the builder's only way to look outside while lowering."""

    def named_context(self, name: str, platform: Platform) -> BaseSource | None:
        """The context that --build-context gave this name, None when there is none."""

    def image(self, name: str, platform: Platform) -> BaseSource:
        """An image by name. Raises BuildError when there is none."""

    def context_time(self, name: str) -> int | None:
        """How old a context is ("context" is the main one), in seconds since 1970; None if nobody dates it."""

    def source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        """How old what an operation fetches is, in seconds since 1970. Raises BuildError."""


def normal_name(name: str) -> str:
    """A context's name as it is compared: `busybox`, `busybox:latest`, `docker.io/library/busybox` are one name."""
    try:
        return parse_reference(name).familiar.removesuffix(":latest")
    except DockerfileError:
        return name.lower()


def stage_aliases(contexts: Mapping[str, str]) -> dict[str, str]:
    """The names that `--build-context NAME=target:STAGE` gives to stages, in the form of `normal_name`."""
    return {
        normal_name(name): value.removeprefix("target:")
        for name, value in contexts.items()
        if value.startswith("target:")
    }
