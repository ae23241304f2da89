"""The --build-arg that are for the builder and not for the Dockerfile, where this builder differs from BuildKit.

Source: Dockerfile reference, "BuildKit built-in build args". The others are read where they matter.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import UsageError

_TRUE = ("1", "t", "T", "true", "TRUE", "True")


def check_known_args(build_args: Mapping[str, str]) -> None:
    """Refuse a frontend that is no Dockerfile's (UsageError)."""
    syntax = build_args.get("BUILDKIT_SYNTAX", "")
    if syntax and "dockerfile" not in syntax.split("@")[0].rpartition("/")[2]:
        raise UsageError(
            f'BUILDKIT_SYNTAX "{syntax}" is not a Dockerfile frontend',
            hint="pybuild reads Dockerfiles itself and runs no other frontend",
        )


def wants_inline_cache(build_args: Mapping[str, str]) -> bool:
    """Whether the image is to have the records of its layers in its config, as with --cache-to type=inline."""
    return build_args.get("BUILDKIT_INLINE_CACHE", "") in _TRUE
