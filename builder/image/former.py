"""What a name of the store meant before: which versions there are, whether they are still whole, going back to one."""

from __future__ import annotations

from builder.errors import BuildError
from builder.image.names import ImageName
from builder.image.stored import read_images
from cache.digest import Digest
from cache.errors import CacheError
from cache.images import ImageRecord
from cache.namedtuple import NamedTuple
from cache.store import Store
from cache.versions import Version, former_of

_MOST_DIGITS = 6
"""A number of more digits is the start of a digest."""


class Former(NamedTuple):
    """The versions of a name, the newest first, and the number of the one that it means."""

    versions: list[Version]
    current: int


def versions_of(store: Store, name: ImageName) -> Former:
    """Return what a name meant and means; BuildError when the store has no such name."""
    record = store.images.get(str(name))
    if record is None:
        raise BuildError(f"no such image: {name.familiar!r}", hint="`pybuild images` lists what there is")
    versions, current = store.images.versions.of(str(name)), store.images.versions.current(str(name))
    if not current:
        current = max((version.number for version in versions), default=0) + 1
        versions.insert(0, _unwritten(record, current))
    return Former(versions, current)


def _unwritten(record: ImageRecord, number: int) -> Version:
    return Version(record.name, number, record.manifest_digest, record.config_digest, record.created_ns, number - 1)


def roll_back(store: Store, name: ImageName, wanted: str = "") -> Version:
    """Let a name mean a version again, by number, digest or id, or the start of one; "" for the one before. Returns it.

    BuildError when there is no such version, or when it was pruned.
    """
    former = versions_of(store, name)
    version = _chosen(former, name, wanted)
    if version.number == former.current:
        raise BuildError(f"{name.familiar} means version {version.number} already")
    if not is_whole(store, version):
        hint = "build or pull it again; `pybuild images --versions` says which are left"
        raise BuildError(f"version {version.number} of {name.familiar} was pruned from the store", hint=hint)
    store.images.switch(version)
    return version


def _chosen(former: Former, name: ImageName, wanted: str) -> Version:
    hint = f"`pybuild images --versions {name.familiar}` lists what there is"
    if not wanted:
        found = former_of(former.versions, former.current)
        if found is None:
            raise BuildError(f"{name.familiar} has no version before {former.current}", hint=hint)
        return found
    is_number = wanted.isascii() and wanted.isdecimal() and len(wanted) <= _MOST_DIGITS
    matching = [each for each in former.versions if _is_called(each, wanted, is_number=is_number)]
    if not matching:
        raise BuildError(f"{name.familiar} has no version {wanted!r}", hint=hint)
    if len({each.manifest_digest for each in matching}) > 1:
        raise BuildError(f"{name.familiar}: {wanted!r} may be several versions", hint="give the version's number")
    return next((each for each in matching if each.number == former.current), matching[0])


def _is_called(version: Version, wanted: str, *, is_number: bool) -> bool:
    if is_number:
        return version.number == int(wanted)
    start = wanted if wanted.startswith("sha256:") else f"sha256:{wanted}"
    return version.manifest_digest.startswith(start) or version.config_digest.startswith(start)


def is_whole(store: Store, version: Version) -> bool:
    """Return whether the documents and the layers of a version are in the store; they then stay for this process."""
    try:
        images = read_images(store, Digest(version.manifest_digest))
    except (BuildError, CacheError):
        return False
    return all(not image.chain_id or store.snapshots.get(image.chain_id) is not None for image in images)
