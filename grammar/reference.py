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

_LEGACY_DEFAULT_DOMAIN = "index.docker.io"
_OFFICIAL_PREFIX = "library/"
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
    if _identifier().fullmatch(text):
        raise DockerfileError(f"image {quoted(text)} is a bare id, expected a name")
    domain, rest = _split_domain(text)
    path = rest.partition(":")[0]
    if to_lower(path) != path:
        raise DockerfileError(
            f"image {quoted(text)} has upper-case letters in its name, expected lower case",
            hint=f"did you mean {to_lower(path.removeprefix('library/'))}? A stage is named exactly as its AS name",
            subject=text,
        )
    match = _reference().fullmatch(f"{domain}/{rest}")
    if match is None:
        raise DockerfileError(
            f"image {quoted(text)} is not a valid reference, expected [registry/]name[:tag][@digest]", subject=text
        )
    if len(match["path"]) > MAX_PATH_SIZE:
        raise DockerfileError(f"image {quoted(text)} has a name longer than {MAX_PATH_SIZE} characters", subject=text)
    if match["digest"] and not is_digest(match["digest"]):
        raise DockerfileError(f"image {quoted(text)} has a digest that is not valid, expected sha256:<64 hex digits>")
    return Reference(match["domain"] or "", match["path"], match["tag"] or "", match["digest"] or "")


def parse_any_reference(text: str) -> str:
    """The complete form of a reference, a digest, or an image id of 64 hex digits. Raises DockerfileError."""
    if _identifier().fullmatch(text):
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


@cache
def _identifier() -> re.Pattern[str]:
    return re.compile("[a-f0-9]{64}")


@cache
def _reference() -> re.Pattern[str]:
    """Compiled at the first use: a warm build names images by digest."""
    component = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    domain = rf"(?:{component}(?:\.{component})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
    part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
    digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
    return re.compile(
        rf"(?:(?P<domain>{domain})/)?(?P<path>{part}(?:/{part})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
        rf"(?:@(?P<digest>{digest}))?"
    )
