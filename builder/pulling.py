"""Images of registries: what names mean there, and their layers when something needs them.

The door to `registry`, which a build that finds all its images in the store does not load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.image.names import parse_name
from builder.image.pins import Pin, get_pin, pinned_image, put_pin
from builder.image.stored import StoredImage, read_image, tag_image
from builder.plan import ImageSourceOp
from cache.digest import Digest
from cache.errors import CacheError
from cache.mutex import Lock
from cache.snapshots import Snapshot
from cache.store import Store

if TYPE_CHECKING:
    from builder.registry.client import RegistryClient
    from builder.registry.resolve import Resolved
    from builder.registry.transfers import OnTransfer


class RemoteImages:
    """The registries as one build sees them. Any thread may use it. `say` gets a line before something is asked."""

    def __init__(
        self,
        store: Store,
        environ: Mapping[str, str],
        *,
        pull: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.pull = pull
        """Whether names are asked for anew even if the store knows them (--pull)."""
        self._environ = environ
        self._say = say
        self._lock = Lock()
        self._clients: dict[bool, RegistryClient] = {}
        self._asked: dict[tuple[str, str], StoredImage] = {}

    def known(self, name: str, platform: str) -> StoredImage | None:
        """What a name meant when its registry was last asked, None when that is not known. Asks nobody."""
        return pinned_image(self.store, str(parse_name(name)), platform)

    def ask(self, name: str, platform: str) -> StoredImage:
        """What a name means at its registry now, asked once in a build; its documents are in the store, its layers may
        not be. Raises BuildError."""
        parsed = parse_name(name)
        complete = str(parsed)
        with self._lock:
            found = self._asked.get((complete, platform))
        if found is None and parsed.digest:
            found = self.known(name, platform)  # a digest cannot come to mean something else
        if found is None:
            found = self._resolve(name, complete, platform)
            with self._lock:
                self._asked[complete, platform] = found
        return found

    def _resolve(self, name: str, complete: str, platform: str) -> StoredImage:
        found = self.look(name, platform)
        put_pin(self.store, complete, platform, Pin(found.top, found.image.manifest_digest))
        return found.image

    def look(self, name: str, platform: str) -> Resolved:
        """What a name means at its registry now; builds do not come to know of it. Raises BuildError."""
        from builder.registry.resolve import resolve

        self._say(f"resolving {name} for {platform}")
        pin = get_pin(self.store, str(parse_name(name)), platform)
        try:
            return resolve(self.client, self.store, name, platform, known=pin.top if pin is not None else None)
        except CacheError as error:
            raise BuildError(f"{name}: {error}", hint=error.hint) from error

    def fetch(self, op: ImageSourceOp, on_transfer: OnTransfer) -> Snapshot:
        """The root of an image, whose layers are brought here if they are not. Raises BuildError, CacheError."""
        from builder.registry.pull import Source, pull_layers

        if "://" in op.reference:
            message = f"image {op.reference} is in the store without its layers"
            raise BuildError(message, hint="build with --no-cache, or remove the store's record of it")
        image = read_image(self.store, Digest(op.manifest_digest))
        places = self.client.places(op.reference)
        source = Source([place.repository for place in places], self.client.cancel, on_transfer)
        return pull_layers(self.store, image, source)

    @property
    def client(self) -> RegistryClient:
        """The connections as the configuration says, opened at the first use."""
        return self.connect(insecure=False)

    def connect(self, *, insecure: bool) -> RegistryClient:
        """The connections; with `insecure` no registry needs TLS, or a certificate that somebody vouches for."""
        from builder.registry.client import RegistryClient

        with self._lock:
            if insecure not in self._clients:
                self._clients[insecure] = RegistryClient(self._environ, insecure=insecure)
            return self._clients[insecure]

    def cancel(self) -> None:
        """End what is under way. Idempotent."""
        for client in list(self._clients.values()):
            client.cancel()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        for client in self._clients.values():
            client.close()


def pull_named(store: Store, client: RegistryClient, name: str, platform: str, *, on_transfer: OnTransfer) -> Resolved:
    """Bring an image here, whole, and give it its name; one that was asked for by digest has none. BuildError,
    CacheError."""
    from builder.registry.pull import Source, pull_image
    from builder.registry.resolve import resolve

    complete = parse_name(name)
    resolved = resolve(client, store, name, platform)
    places = [resolved.repository, *(place.repository for place in client.places(name))]
    image = pull_image(store, resolved.image, Source(places, client.cancel, on_transfer))
    tag_image(store, image.manifest_digest, image.config_digest, [] if complete.digest else [complete])
    put_pin(store, str(complete), platform, Pin(resolved.top, image.manifest_digest))
    return resolved
