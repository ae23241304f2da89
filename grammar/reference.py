"""Names of images: `[registry/]path[:tag][@digest]`, and how the short forms people write are completed.

It knows the rules of the distribution project's references and Docker's default registry; it asks no registry.
"""

import re
from functools import cache
from typing import NamedTuple, Self

from grammar.characters import quoted, to_lower
from grammar.errors import DockerfileError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_PATH_SIZE = 255
MAX_TAG_SIZE = 128

_LEGACY_DEFAULT_DOMAIN = "index.docker.io"
_OFFICIAL_PREFIX = "library/"
_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_TAG = f"{_LOWER}ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-"
_HEX_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}


class Reference(NamedTuple):
    """A complete reference; `tag` and `digest` are "" if not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def name(self) -> str:
        """Registry and path; a first part that is no valid host name belongs to the path, and there is no registry."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The name as people write it: without the default registry and its `library/`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL_PREFIX)
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference with its familiar name."""
        return self.familiar_name + self._suffix

    @property
    def is_name_only(self) -> bool:
        return not self.tag and not self.digest

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Self:
        """With the tag `latest` if there is neither tag nor digest."""
        return self._replace(tag=DEFAULT_TAG) if self.is_name_only else self

    def pinned(self) -> Self:
        """What a registry is asked for: a digest makes the tag moot, no tag means the default one."""
        return self._replace(tag="") if self.digest else self.with_default_tag()


def parse_reference(text: str) -> Reference:
    """The complete reference that `text` stands for. Raises DockerfileError."""
    if _is_identifier(text):
        raise DockerfileError(f"image {quoted(text)} is a bare id, expected a name")
    domain, rest = _split_domain(text)
    path = rest.partition(":")[0]
    if to_lower(path) != path:
        raise DockerfileError(
            f"image {quoted(text)} has upper-case letters in its name, expected lower case",
            hint=f"did you mean {to_lower(path.removeprefix('library/'))}? A stage is named exactly as its AS name",
            subject=text,
        )
    found = _parsed(domain, rest)
    if found is None:
        raise DockerfileError(
            f"image {quoted(text)} is not a valid reference, expected [registry/]name[:tag][@digest]", subject=text
        )
    if len(found.path) > MAX_PATH_SIZE:
        raise DockerfileError(f"image {quoted(text)} has a name longer than {MAX_PATH_SIZE} characters", subject=text)
    if found.digest and not is_digest(found.digest):
        raise DockerfileError(f"image {quoted(text)} has a digest that is not valid, expected sha256:<64 hex digits>")
    return found


def parse_any_reference(text: str) -> str:
    """The complete form of a reference, a digest, or an image id of 64 hex digits. Raises DockerfileError."""
    if _is_identifier(text):
        return f"sha256:{text}"
    return text if is_digest(text) else str(parse_reference(text))


def is_digest(text: str) -> bool:
    """Whether `text` is a digest of an algorithm that can be checked."""
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _HEX_SIZES.get(algorithm) and not encoded.strip("0123456789abcdef")


def _split_domain(text: str) -> tuple[str, str]:
    """Registry and remainder. The first part is a registry if it looks like a host, or cannot be a path."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL_PREFIX + text
    if first == _LEGACY_DEFAULT_DOMAIN:
        first = DEFAULT_DOMAIN
    elif not (first == "localhost" or "." in first or ":" in first or to_lower(first) != first):
        return DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL_PREFIX + rest
    return first, rest


def _is_identifier(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def _parsed(domain: str, rest: str) -> Reference | None:
    """The parts of `domain/path[:tag][@digest]`, None when one is malformed."""
    name, at, digest = rest.partition("@")
    path, colon, tag = name.partition(":")
    if domain != DEFAULT_DOMAIN and not _domain().fullmatch(domain):
        domain, path = "", f"{domain}/{path}"
    is_valid = (
        all(map(_is_part, path.split("/")))
        and (not colon or _is_tag(tag))
        and (not at or _digest().fullmatch(digest) is not None)
    )
    return Reference(domain, path, tag, digest) if is_valid else None


def _is_part(text: str) -> bool:
    return text != "" and (not text.strip(_LOWER) or _part().fullmatch(text) is not None)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= MAX_TAG_SIZE and text[0] not in ".-" and not text.strip(_TAG)


# Compiled at the first use: a warm build names images by digest, and most names are plain words.
@cache
def _domain() -> re.Pattern[str]:
    component = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    return re.compile(rf"(?:{component}(?:\.{component})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")


@cache
def _part() -> re.Pattern[str]:
    return re.compile("[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")


@cache
def _digest() -> re.Pattern[str]:
    return re.compile("[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
