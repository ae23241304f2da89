"""The --build-arg that are for the builder and not for the Dockerfile, where this builder differs from BuildKit.

Source: Dockerfile reference, "BuildKit built-in build args". The others are read where they matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builder.errors import UsageError

_TRUE = ("1", "t", "T", "true", "TRUE", "True")


def check_known_args(build_args: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Refuse a frontend that is no Dockerfile's (UsageError); say what has no effect here."""
    syntax = build_args.get("BUILDKIT_SYNTAX", "")
    if syntax and "dockerfile" not in syntax.split("@")[0].rpartition("/")[2]:
        raise UsageError(
            f'BUILDKIT_SYNTAX "{syntax}" is not a Dockerfile frontend',
            hint="pybuild reads Dockerfiles itself and runs no other frontend",
        )
    if build_args.get("BUILDKIT_INLINE_CACHE", "") in _TRUE:
        say("BUILDKIT_INLINE_CACHE has no effect: the store keeps the cache, images do not carry it")
