"""The images that a layout's index or a Docker archive lists, with their names.

Turns both lists into the same thing: names, and a manifest with its bytes. Reads documents through a function and
registers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from builder.errors import BuildError
from builder.image.archive import Archive, DockerImage
from builder.image.manifest import Index, Manifest, encode_manifest
from builder.image.names import ImageName, parse_name
from builder.image.platform import platform_of
from builder.image.select import (
    IMAGE_NAME,
    REF_NAME,
    ReadDocument,
    Selected,
    is_unnamed_image,
    platforms_in,
    select_manifest,
)
from cache.descriptor import MEDIA_CONFIG, MEDIA_LAYER_GZIP, MEDIA_LAYER_TAR, MEDIA_LAYER_ZSTD, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.namedtuple import NamedTuple

_LAYER_TYPES = {"none": MEDIA_LAYER_TAR, "gzip": MEDIA_LAYER_GZIP, "zstd": MEDIA_LAYER_ZSTD}


class Listed(NamedTuple):
    """One image of an archive."""

    names: tuple[ImageName, ...]
    selected: Selected


def index_images(index: Index, read: ReadDocument, platform: str, what: str) -> list[Listed]:
    """Return the images of a layout's index, each once with all its names; of several platforms the wanted one.

    BuildError when there is none, or one has nothing for `platform`.
    """
    found: dict[Digest, Listed] = {}
    for entries in _groups(index):
        selected = select_manifest(entries, read, platform)
        if selected is None:
            raise BuildError(f"{what} has no image for platform {platform}, its platforms: {platforms_in(entries)}")
        names = _entry_names(entries[0])
        if selected.digest in found:
            names = merge_names(found[selected.digest].names, names)
        found[selected.digest] = Listed(names, selected)
    if not found:
        raise BuildError(f"{what} has no images: its index lists none")
    return list(found.values())


def _groups(index: Index) -> Iterator[list[Descriptor]]:
    """Entries of the same name for different platforms are one image; entries that state none are one each."""
    groups: dict[tuple[str, ...], list[Descriptor]] = {}
    for number, entry in enumerate(index.manifests):
        if is_unnamed_image(entry):
            annotations = entry.annotations or {}
            names = (annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, ""))
            alone = () if platform_of(entry.platform or {}) else (str(number),)
            groups.setdefault((*names, *alone), []).append(entry)
    yield from groups.values()


def _entry_names(entry: Descriptor) -> tuple[ImageName, ...]:
    """A bare tag, which is what many programs write, names no image."""
    annotations = entry.annotations or {}
    full, reference = annotations.get(IMAGE_NAME, ""), annotations.get(REF_NAME, "")
    return valid_names([full or (reference if ":" in reference or "/" in reference else "")])


def valid_names(texts: Iterable[str]) -> tuple[ImageName, ...]:
    """Return those of `texts` that are image names; an archive may have others, its images then have ids only."""
    names: list[ImageName] = []
    for text in texts:
        try:
            name = parse_name(text)
        except BuildError:
            continue
        if not name.digest:
            names.append(name)
    return merge_names(names)


def merge_names(*names: Sequence[ImageName]) -> tuple[ImageName, ...]:
    """Return all names, each once, in order."""
    return tuple(dict.fromkeys([name for group in names for name in group]))


def docker_names(archive: Archive) -> dict[Digest, tuple[ImageName, ...]]:
    """Return the names that `manifest.json` gives, by the digests of the configs."""
    return {archive.blob(image.config)[0]: valid_names(image.names) for image in archive.docker_images()}


def docker_listed(image: DockerImage, archive: Archive, detect: Callable[[Digest], str]) -> Listed:
    """Return an image of `manifest.json` with the manifest that Docker's format lacks; `detect` tells how a blob is
    compressed. The layers may still be anything."""
    config_digest, config_size = archive.blob(image.config)
    layers = [archive.blob(name) for name in image.layers]
    manifest = Manifest(
        config=Descriptor(MEDIA_CONFIG, config_digest, config_size),
        layers=tuple([Descriptor(_layer_type(detect(digest)), digest, size) for digest, size in layers]),
    )
    raw = encode_manifest(manifest)
    return Listed(valid_names(image.names), Selected(sha256_bytes(raw), manifest, raw))


def _layer_type(compression: str) -> str:
    """OCI has no name for bzip2 and xz, which old archives may use; readers look at the bytes, as Docker does."""
    return _LAYER_TYPES.get(compression, MEDIA_LAYER_TAR)
