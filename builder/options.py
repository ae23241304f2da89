"""What a build was asked to do: the command line's words, as values."""

from collections.abc import Mapping

from cache.namedtuple import NamedTuple


class SecretSource(NamedTuple):
    """One `--secret`: where the bytes come from. Exactly one of `path` and `env` is set."""

    id: str
    path: str = ""
    env: str = ""
    keyed: bool = False
    """Whether another secret means another result (`cache=key`)."""


class Dns(NamedTuple):
    """--dns and its relatives: what stands in /etc/resolv.conf of steps instead of the machine's own lines."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NO_DNS = Dns()


class BuildOptions(NamedTuple):
    """The options of `pybuild build` that decide what the result is; names as in `docker buildx build`."""

    context: str = "."
    dockerfile: str = ""
    target: str = ""
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    platform: str = ""
    named_contexts: Mapping[str, str] = {}
    no_cache: bool = False
    cache_key_mode: str = "full"
    """What of a context file's mode is in keys: `full`, or `git` for the executable bit alone."""
    no_cache_filter: tuple[str, ...] = ()
    network: str = "default"
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    """Every --target, when there are several; `target` is the one that is lowered."""
    platforms: tuple[str, ...] = ()
    """Every --platform, when there are several; `platform` is the one that is lowered."""
    multi_platform: bool = False
    """Whether the result is an index over platforms, be there one or several."""
    hostname: str = ""
    devices: tuple[str, ...] = ()
    """Devices that every RUN gets, by CDI name or path."""
    security_opt: tuple[str, ...] = ()
    """What distinguishes --security-opt from its default, a profile by its digest."""
    cache_namespace: str = ""
    """What the ids of cache mounts begin with."""
