"""Places of images as skopeo spells them: text in, values out."""

from __future__ import annotations

from builder.errors import UsageError
from cache.namedtuple import NamedTuple

TRANSPORTS = ("docker", "oci", "oci-archive", "docker-archive", "store", "docker-daemon", "containers-storage")
FOREIGN = ("docker-daemon", "containers-storage")
"""Those that only skopeo can open."""
_ARCHIVES = ("oci-archive", "docker-archive")
_FILES = ("oci", *_ARCHIVES)


class Place(NamedTuple):
    """A transport and where there: a name, or a path with what is after its colon: a tag, or a name."""

    transport: str
    where: str
    tag: str = ""

    @property
    def is_stream(self) -> bool:
        """Whether it is an archive on standard input or output."""
        return self.where == "-" and self.transport in _ARCHIVES

    def __str__(self) -> str:
        slashes = "//" if self.transport == "docker" else ""
        return f"{self.transport}:{slashes}{self.where}{f':{self.tag}' if self.tag else ''}"


def parse_place(text: str) -> Place:
    """`docker://NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`, `store:NAME` and so on.

    UsageError for anything else.
    """
    transport, colon, rest = text.partition(":")
    if not colon or transport not in TRANSPORTS:
        hint = "for a registry docker://NAME, for the local store store:NAME"
        raise UsageError(f'"{text}" names no transport, expected one of {", ".join(TRANSPORTS)}', hint=hint)
    if transport == "docker":
        if not rest.startswith("//"):
            raise UsageError(f'"{text}" is not docker://NAME')
        rest = rest[2:]
    if not rest:
        raise UsageError(f'"{text}" says nothing after its transport')
    if transport not in _FILES:
        return Place(transport, rest)
    path, _, tag = rest.partition(":")
    return Place(transport, path, tag)
