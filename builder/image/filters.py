"""`--filter` of `images`, in docker's words: which images are meant.

Different keys all have to hold, of one key's values one does. Source: docker image ls reference, --filter; patterns are
those of Go's path.Match.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence

from builder.errors import UsageError
from builder.image.config import runtime_config
from builder.image.names import familiar_parts
from builder.image.stored import StoredImage
from builder.image.timestamp import parse_time
from cache.namedtuple import NamedTuple

_KEYS = ("reference", "dangling", "label", "before", "since")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class Candidate(NamedTuple):
    """What filters look at: one name of an image, or "", and the image, or those of an index."""

    name: str
    images: Sequence[StoredImage]
    created: str


Created = Callable[[str], str]
"""Tells when an image was made, by a name or an id; BuildError when there is none."""


def parse_image_filters(texts: Iterable[str], created_of: Created) -> Callable[[Candidate], bool]:
    """Return whether an image is meant by all `--filter`s together. UsageError for one that does not exist."""
    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in _KEYS or not equals or not value:
            hint = "filters are reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE"
            raise UsageError(f'--filter "{text}" is not known', hint=hint)
        if key == "dangling" and value not in (*_TRUE, *_FALSE):
            raise UsageError(f'--filter "{text}": expected true or false')
        wanted.setdefault(key, []).append(value)
    limits = {key: [_moment(created_of(name)) for name in wanted.get(key, ())] for key in ("before", "since")}
    return lambda candidate: _fits(candidate, wanted, limits)


def _fits(candidate: Candidate, wanted: Mapping[str, list[str]], limits: Mapping[str, list[int]]) -> bool:
    moment = _moment(candidate.created)
    if "reference" in wanted and not any(matches(candidate.name, pattern) for pattern in wanted["reference"]):
        return False
    if "dangling" in wanted and not any((value in _TRUE) == (not candidate.name) for value in wanted["dangling"]):
        return False
    if not all(_has_label(candidate.images, label) for label in wanted.get("label", ())):
        return False
    return all(moment < limit for limit in limits["before"]) and all(moment > limit for limit in limits["since"])


def _moment(created: str) -> int:
    return parse_time(created) or 0


def _has_label(images: Sequence[StoredImage], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    found = [(runtime_config(image.config).get("Labels") or {}).get(key) for image in images]
    return value in found if equals else any(each is not None for each in found)


def matches(name: str, pattern: str) -> bool:
    """Return whether a name of the store, as people write it, with or without its tag, is like a pattern, whose `*`
    and `?` stand for no slash."""
    if not name:
        return False
    repository, tag = familiar_parts(name)
    return any(_like(text, pattern) for text in (repository, f"{repository}:{tag}", name))


def _like(text: str, pattern: str) -> bool:
    parts, patterns = text.split("/"), pattern.replace("[^", "[!").split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
