"""The image that a word on the command line means: an archive, a layout directory, a name or an id in the store."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from builder.errors import BuildError
from builder.image.stored import StoredImage, platforms_of, read_image, resolve_image
from cache.compression import detect
from cache.digest import Digest
from cache.errors import CacheError
from cache.store import Store

_TAR_MAGIC = (257, b"ustar")
_SETTLED_NS = 2 * 10**9
"""A file that changed this recently may change again without any of its times showing it."""


def find_image(store: Store, text: str, cwd: str, clock: Callable[[], int], *, platform: str = "") -> StoredImage:
    """The image for a platform ("": this machine's, or whatever there is); one that lies in an archive (plain or
    compressed) or in an OCI layout (`DIR[:TAG]`) is imported first, without a name. BuildError when there is none."""
    path = os.path.join(cwd, text)
    if _is_archive(path):
        return _from_archive(store, path, clock, platform)
    if os.path.exists(path) or ":" in text:
        image = _from_layout(store, text, cwd, platform)
        if image is not None:
            return image
    image = resolve_image(store, text, platform)
    if image is None:
        others = platforms_of(store, text) if platform else ()
        if others:
            raise BuildError(f'image "{text}" is not for {platform}', hint=f"it is for {', '.join(others)}")
        raise BuildError(f'no such image: "{text}"', hint=_hint(store, text, path))
    return image


def is_name(text: str, cwd: str) -> bool:
    """Whether a word can be the name of an image at a registry: no path, and no start of an id."""
    from grammar.errors import DockerfileError
    from grammar.reference import parse_reference

    if os.path.exists(os.path.join(cwd, text)):
        return False
    try:
        parse_reference(text)
    except DockerfileError:
        return False
    return True


def _from_layout(store: Store, text: str, cwd: str, platform: str) -> StoredImage | None:
    """The image of `DIR[:TAG]`, None when there is no such layout."""
    from builder.image.layout import INDEX_FILE, split_layout_name

    directory, wanted = split_layout_name(text)
    if not os.path.isfile(os.path.join(cwd, directory, INDEX_FILE)):
        return None
    from builder.image.importer import import_layout

    return import_layout(store, os.path.join(cwd, directory), wanted, platform)


def _is_archive(path: str) -> bool:
    """Whether a regular file begins like a tar or a compressed stream."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    offset, magic = _TAR_MAGIC
    return detect(head) != "none" or head[offset:].startswith(magic)


def _from_archive(store: Store, path: str, clock: Callable[[], int], platform: str) -> StoredImage:
    """The only image of an archive. One that has not changed since it was last imported is not read again."""
    status = os.stat(path)
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    key = f"archive {' '.join(map(str, fields))}{f' {platform}' if platform else ''}"
    known = store.memo.get(key)
    if known is not None:
        image = _read_known(store, known.decode("ascii"))
        if image is not None:
            return image
    from builder.image.importer import import_archive

    found = {image.manifest_digest: (names, image) for names, image in import_archive(store, path, platform)}
    if len(found) != 1:
        listed = ", ".join(str(name) for names, _ in found.values() for name in names)
        raise BuildError(
            f'"{path}" holds {len(found)} images, expected one',
            hint=f"pybuild load {path}, then run one of them: {listed}" if listed else None,
        )
    ((digest, (_, image)),) = found.items()
    if status.st_ctime_ns + _SETTLED_NS < clock():
        store.memo.put(key, digest.encode("ascii"))
    return image


def _read_known(store: Store, manifest_digest: str) -> StoredImage | None:
    """An image that was imported before, None when something of it is gone."""
    try:
        image = read_image(store, Digest(manifest_digest))
    except CacheError:
        return None
    return image if store.snapshots.get(image.chain_id) is not None else None


def _hint(store: Store, text: str, path: str) -> str:
    """What the user may have meant."""
    if os.path.isfile(path):
        return f'the file "{text}" is not an image archive'
    if os.path.isdir(path):
        return f'the directory "{text}" is not an OCI image layout, to build it: pybuild {text}'
    if "/" in text and text.endswith((".tar", ".gz", ".tgz", ".zst")):
        return "there is no such file"
    from difflib import get_close_matches

    names = {record.name: record.name for record in store.images.walk() if record.name}
    for name in list(names):
        # As people write it: without registry, namespace and tag.
        names.setdefault(name.rpartition("/")[2].partition(":")[0], name)
        names.setdefault(name.rpartition("/")[2], name)
    near = get_close_matches(text, names, 1)
    if near:
        return f"did you mean {near[0]}?"
    return "pybuild images lists what there is, pybuild load reads an archive"
