"""The attributes that a front end is given (`platform`, `add-hosts`, `build-arg:NAME`, …), as one checked value.

This is the meeting point of everything that asks for a build: the command line writes its words as attributes, as
buildx does, and what the attributes come to decides. Knows no option, no store and no Dockerfile.
Source: BuildKit, frontend attributes of the Dockerfile front end.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder import frontend_values as values
from builder.errors import UsageError
from builder.frontend_values import ExtraHost, Resources, Ulimit
from cache.namedtuple import NamedTuple
from grammar.platforms import Platform

if TYPE_CHECKING:
    from grammar.lint import LintConfig
else:  # evaluated by NamedTuple, for which text would have to be compiled: 2 ms
    LintConfig = object

BUILD_ARG = "build-arg:"
LABEL = "label:"
_ATTESTATION = "attest:"
_ATTESTATION_ARG = "BUILDKIT_ATTEST_"
_ATTESTATIONS = ("sbom", "provenance")
CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that stands in for a Dockerfile's own `# check=`."""


class CacheImport(NamedTuple):
    """One place to take cached results from."""

    type: str
    attributes: Mapping[str, str]


class FrontendOptions(NamedTuple):
    """What the attributes of one build say; the defaults are those of an empty set of attributes."""

    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    target: str = ""
    target_platforms: tuple[Platform, ...] = ()
    """Empty: the machine's own."""
    multi_platform: bool = False
    """Whether the result is an index, also of one platform."""
    resolve_mode: str = "default"
    extra_hosts: tuple[ExtraHost, ...] = ()
    hostname: str = ""
    network: str = "sandbox"
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    resources: Resources = Resources()
    cgroup_parent: str = ""
    cache_namespace: str = ""
    no_cache: tuple[str, ...] | None = None
    """Stages whose instructions all run; empty for every stage, None for none."""
    cache_imports: tuple[CacheImport, ...] = ()
    attestations: Mapping[str, Mapping[str, str]] = {}
    check: LintConfig | None = None
    """What BUILDKIT_DOCKERFILE_CHECK says, if it was given."""


def read_options(attributes: Mapping[str, str], default: Platform) -> FrontendOptions:
    """The options that the attributes come to; `default` is the platform of this machine. Raises UsageError."""
    get = attributes.get
    build_args = _prefixed(attributes, BUILD_ARG)
    _refuse_removed(attributes, build_args)
    platforms = values.read_platforms(get("platform", ""), default)
    no_cache = get("no-cache")
    return FrontendOptions(
        build_args=build_args,
        labels=_prefixed(attributes, LABEL),
        target=get("target", ""),
        target_platforms=platforms,
        multi_platform=_multi_platform(attributes, build_args, len(platforms)),
        resolve_mode=values.read_resolve_mode(get("image-resolve-mode", "")),
        extra_hosts=values.read_extra_hosts(get("add-hosts", "")),
        hostname=build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or get("hostname", ""),
        network=values.read_network(get("force-network-mode", "")),
        shm_size=values.read_shm_size(get("shm-size", "")),
        ulimits=values.read_ulimits(get("ulimit", "")),
        resources=read_resources(attributes),
        cgroup_parent=get("cgroup-parent", ""),
        cache_namespace=build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        no_cache=None if no_cache is None else tuple(no_cache.split(",")) if no_cache else (),
        cache_imports=_cache_imports(attributes),
        attestations=_attestations(attributes),
        check=_check(build_args.get(CHECK_ARG)),
    )


def read_resources(attributes: Mapping[str, str]) -> Resources:
    """The limits among the attributes. Raises UsageError."""
    given = [name for name in values.RESOURCES if name in attributes]
    return Resources(**{name: values.read_resource(name, attributes[name]) for name in given})  # type: ignore[arg-type]


def _prefixed(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attributes.items() if name.startswith(prefix)}


def _refuse_removed(attributes: Mapping[str, str], build_args: Mapping[str, str]) -> None:
    """What BuildKit once had and no longer takes."""
    if attributes.get("override-copy-image"):
        raise UsageError("override-copy-image: nothing copies with an image any more")
    if build_args.get("BUILDKIT_DISABLE_FILEOP") in ("1", "t", "T", "TRUE", "true", "True"):
        raise UsageError("BUILDKIT_DISABLE_FILEOP: files are always copied without a container")


def _multi_platform(attributes: Mapping[str, str], build_args: Mapping[str, str], platforms: int) -> bool:
    """Whether an index is asked for: by the argument, by the attribute, else by there being several platforms."""
    text = build_args.get("BUILDKIT_MULTI_PLATFORM") or attributes.get("multi-platform")
    if not text:
        return platforms > 1
    wanted = values.read_bool(text, "multi-platform")
    if platforms > 1 and not wanted:
        raise UsageError(f'multi-platform "{text}" allows one platform, and there are {platforms}')
    return wanted


def _cache_imports(attributes: Mapping[str, str]) -> tuple[CacheImport, ...]:
    """`cache-imports` is JSON, a list of {"Type", "Attrs"}; `cache-from`, the older, names images."""
    found: list[CacheImport] = []
    if text := attributes.get("cache-imports"):
        found += map(_cache_import, _json_list(text))
    if text := attributes.get("cache-from"):
        found += [CacheImport("registry", {"ref": name}) for name in text.split(",")]
    return tuple(found)


def _json_list(text: str) -> list[object]:
    import json

    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'cache-imports "{text}" is not JSON: {error}') from error
    if not isinstance(entries, list | None):
        raise UsageError(f'cache-imports "{text}" is not a list')
    return entries or []


def _cache_import(entry: object) -> CacheImport:
    if not isinstance(entry, dict):
        raise UsageError(f'cache-imports has the entry "{entry}", expected an object')
    fields = {str(name).lower(): value for name, value in entry.items() if value is not None}
    kind, attributes = fields.get("type", ""), fields.get("attrs", {})
    if not isinstance(kind, str) or not isinstance(attributes, dict):
        raise UsageError(f'cache-imports has the entry "{entry}", expected "Type" and "Attrs"')
    attributes = {name: "" if value is None else value for name, value in attributes.items()}
    if not all(isinstance(value, str) for value in attributes.values()):
        raise UsageError(f'cache-imports has the entry "{entry}", expected text for every attribute')
    return CacheImport(kind, attributes)


def _attestations(attributes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What to attest: `attest:KIND`, or BUILDKIT_ATTEST_KIND as a build argument."""
    found: dict[str, dict[str, str]] = {}
    for name, text in attributes.items():
        for prefix in (_ATTESTATION, BUILD_ARG + _ATTESTATION_ARG):
            if name.startswith(prefix):
                kind = name.removeprefix(prefix).lower()
                if kind not in _ATTESTATIONS:
                    raise UsageError(f'attestation "{kind}" is not known, expected {" or ".join(_ATTESTATIONS)}')
                fields = values.read_fields(text, f"attestation {kind}") if text else []
                found[kind] = {field.partition("=")[0]: field.partition("=")[2] for field in fields}
    _check_generator(found.get("sbom", {}))
    return found


def _check_generator(sbom: Mapping[str, str]) -> None:
    if "generator" not in sbom:
        return
    from grammar.errors import DockerfileError
    from grammar.reference import parse_reference

    try:
        parse_reference(sbom["generator"])
    except DockerfileError as error:
        raise UsageError(f"attestation sbom: {error.message}", hint=error.hint) from error


def _check(text: str | None) -> LintConfig | None:
    if text is None:
        return None
    from grammar.errors import DockerfileError
    from grammar.lint import parse_check

    try:
        return parse_check(text)
    except DockerfileError as error:
        raise UsageError(f"{CHECK_ARG}: {error.message}", hint=error.hint) from error
