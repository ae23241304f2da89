"""Names of images as the store keeps them: complete, `docker.io/library/busybox:latest`, and as people write them."""

from collections.abc import Iterable

from builder.errors import UsageError
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.reference import parse_reference

NO_NAME = "<none>"


class ImageName(NamedTuple):
    """A complete name with a tag or (only in questions) a digest; str() is the form that the store keeps."""

    repository: str
    familiar_repository: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return self.repository + self._suffix

    @property
    def familiar(self) -> str:
        """The short form: without the default registry and its `library/`."""
        return self.familiar_repository + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_name(text: str) -> ImageName:
    """Return the complete name that `text` stands for, `latest` when it says no tag; UsageError when it is no name."""
    try:
        reference = parse_reference(text).with_default_tag()
    except DockerfileError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return ImageName(reference.name, reference.familiar_name, reference.tag, reference.digest)


def at_registry(text: str) -> str:
    """Return a name without the `docker://` that says where it is: podman takes both where it means a registry."""
    return text.removeprefix("docker://")


def parse_names(texts: Iterable[str]) -> tuple[ImageName, ...]:
    """Return the complete names to give to an image, each once, in order; UsageError for one that cannot be given."""
    names = dict.fromkeys([parse_name(text) for text in texts])
    for name in names:
        if name.digest:
            raise UsageError(f"image name {name.familiar!r} has a digest, expected name[:tag]")
    return tuple(names)


def familiar_parts(name: str) -> tuple[str, str]:
    """Return repository and tag of a name of the store, as `docker images` shows them ("": no name)."""
    if not name:
        return NO_NAME, NO_NAME
    parsed = parse_name(name)
    return parsed.familiar_repository, parsed.tag
