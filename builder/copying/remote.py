"""What `inspect` says of an image at a registry: its documents and what refers to it, no layer."""

from __future__ import annotations

from typing import Any

from builder.copying.content import ImageSource, gather
from builder.copying.sources import open_source
from builder.copying.words import Place
from builder.image.describe import inspect_document
from builder.image.manifest import Index, parse_manifest, require_image_type
from builder.image.names import parse_name
from builder.image.platform import host_platform, platform_of
from builder.image.select import is_image
from builder.image.stored import with_config
from builder.registry.client import RegistryClient
from cache.digest import Digest
from cache.store import Store


def describe_remote(store: Store, client: RegistryClient, text: str, platform: str) -> dict[str, Any]:
    """The document of `inspect` for a name, with sizes as the registry has the layers; no image is put into the store.
    BuildError, RegistryError."""
    name = parse_name(text)
    source = open_source(Place("docker", text), store, client, cwd="")
    content = gather(source, name.familiar, platform or host_platform(), every_platform=False)
    [manifest], top = content.manifests, content.top.descriptor.digest
    require_image_type(manifest, name.familiar)
    image = with_config(top, manifest, source.read(manifest.config))
    size = sum(layer.size for layer in manifest.layers)
    found = inspect_document(image, [] if name.digest else [name.familiar], size)
    found["RepoDigests"] = [f"{name.familiar_repository}@{top}"]
    found["Referrers"] = _referrers(source, top)
    [entry] = source.entries
    if entry.digest != top:
        index = parse_manifest(source.read(entry), f"index {entry.digest}")
        entries = index.manifests if isinstance(index, Index) else ()
        platforms = [platform_of(each.platform or {}) for each in entries if is_image(each)]
        referrers = _referrers(source, entry.digest)
        found["Index"] = {"Digest": str(entry.digest), "Platforms": platforms, "Referrers": referrers}
    return found


def _referrers(source: ImageSource, digest: Digest) -> list[dict[str, Any]]:
    return [referrer.to_json() for referrer in source.referrers(digest, "")]
