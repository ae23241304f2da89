"""Which image a name means at a registry, for a platform: documents only, no layer.

Every place that the configuration names is tried in turn. Documents go into the store, named by their digests, so that
the same question costs one small request the next time. Source: OCI image-spec, image-index; distribution-spec.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.image.manifest import Index, parse_manifest, require_image_type
from builder.image.select import Selected, is_image, platforms_in, select_manifest
from builder.image.stored import StoredImage, put_document, with_config
from builder.registry.client import Place, RegistryClient
from builder.registry.errors import CancelledError, DeniedError, NotFoundError, RegistryError, WrongContentError
from builder.registry.repository import FetchedManifest, Repository
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.namedtuple import NamedTuple
from cache.store import Store


class Resolved(NamedTuple):
    """An image at a registry. `top` is what the name means there: the manifest, or an index that has it."""

    top: Digest
    image: StoredImage
    repository: Repository


def resolve(client: RegistryClient, store: Store, name: str, platform: str, *, known: Digest | None = None) -> Resolved:
    """The image of a name for a platform (`os/arch[/variant]`); its documents are in the store then.

    `known` is what the name meant before: when it still does, nothing is sent but one HEAD. RegistryError says what to
    try.
    """
    failures: list[RegistryError] = []
    for place in client.places(name):
        try:
            return _resolve_at(place, store, name, platform, known=known)
        except CancelledError:
            raise
        except RegistryError as error:
            failures.append(error)
    raise _explained(name, failures)


def _resolve_at(place: Place, store: Store, name: str, platform: str, *, known: Digest | None) -> Resolved:
    repository, reference = place
    top = _top(repository, store, reference, known)
    selected = select_manifest([top], lambda entry: _document(repository, store, entry), platform)
    if selected is None:
        raise NotFoundError(
            f"{name}: no image for platform {platform}, its platforms: {_platforms(store, top)}",
            hint="name one of them with --platform",
        )
    return Resolved(top.digest, _image(repository, store, selected, name), repository)


def _top(repository: Repository, store: Store, reference: str, known: Digest | None) -> Descriptor:
    """What a tag or a digest names; its bytes are in the store."""
    if reference.startswith("sha256:"):
        known = Digest.parse(reference)
    elif known is not None:
        found = repository.find_manifest(reference)
        if found is None:
            raise NotFoundError(f"{repository}:{reference}: not found")
        known = found.digest
    size = store.blobs.size(known) if known is not None else None
    if known is not None and size is not None:
        return Descriptor("", known, size)
    fetched: FetchedManifest = repository.manifest(str(known or reference))
    put_document(store, fetched.raw)
    return fetched.descriptor


def _document(repository: Repository, store: Store, entry: Descriptor) -> bytes:
    """A manifest or an index, from the store if it is there."""
    if store.blobs.size(entry.digest) == entry.size:
        return store.blobs.read(entry.digest)
    raw = repository.manifest(entry.digest).raw
    if len(raw) != entry.size:
        raise WrongContentError(f"{repository}: manifest {entry.digest} has {len(raw)} bytes, expected {entry.size}")
    put_document(store, raw)
    return raw


def _image(repository: Repository, store: Store, selected: Selected, name: str) -> StoredImage:
    config = selected.manifest.config
    require_image_type(selected.manifest, name)
    if store.blobs.size(config.digest) == config.size:
        raw = store.blobs.read(config.digest)
    else:
        raw = repository.read_blob(config)
        put_document(store, raw)
    return with_config(selected.digest, selected.manifest, raw)


def _platforms(store: Store, top: Descriptor) -> str:
    document = parse_manifest(store.blobs.read(top.digest), f"manifest {top.digest}")
    entries = document.manifests if isinstance(document, Index) else ()
    return platforms_in([entry for entry in entries if is_image(entry)])


def _explained(name: str, failures: Sequence[RegistryError]) -> RegistryError:
    """The error of the last place, the registry itself, in words about the image."""
    error = failures[-1]
    hint = error.hint
    if isinstance(error, DeniedError):
        message = f"{name}: the registry does not show it: it does not exist, or needs a login ({error})"
        hint = hint or "pybuild login"
    elif isinstance(error, NotFoundError) and error.status == 404:
        message = f"{name}: not found at its registry ({error})"
        hint = "check the name and the tag; some registries say so of private images: then `pybuild login` helps"
    else:
        message = str(error) if str(error).startswith(name) else f"{name}: {error}"
    others = "; ".join(str(each) for each in failures[:-1])
    explained = type(error)(message, hint=f"{hint or ''} (before that: {others})".strip() if others else hint)
    explained.status = error.status
    return explained
