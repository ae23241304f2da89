"""The words of the build commands as values: what argparse took, checked, and made into BuildOptions."""

import argparse
import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from builder import resources
from builder.commands import Environment
from builder.errors import BuildError, UsageError
from builder.frontend_options import BUILD_ARG, LABEL, read_options
from builder.frontend_values import read_platforms
from builder.image.platform import host_platform, platform_value
from builder.options import BuildOptions, Dns, SecretSource
from builder.progress import KINDS, progress_kind
from builder.security_options import parse_security_options
from cache.namedtuple import NamedTuple

CALLS = ("build", "check", "outline", "targets")
CALL_FORMATS = ("text", "json")


class Call(NamedTuple):
    """What to do with the Dockerfile, and how to print the answer."""

    name: str = "build"
    format: str = "text"


BRIDGE = "bridge"
"""The mode that insists on a network of the build's own; frontends know it as the default."""


class CacheCheck(NamedTuple):
    """How much of what was found in the cache to make again, in percent, and whether a difference is no error."""

    percent: float = 100.0
    warns: bool = False


BARE = {"--cache-check": "--cache-check=100%", "--locked": "--locked="}
"""Options that take a value only behind an equals sign, with what they mean without one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `docker buildx build` that this version has."""
    add = parser.add_argument
    add("context", metavar="PATH|URL|-", nargs="?", default=None, help="the context: a directory, a repository, a tar")
    add("-t", "--tag", action="append", default=[], metavar="NAME[:TAG]", help="name the image in the local store")
    add(
        "-o",
        "--output",
        action="append",
        default=[],
        metavar="SPEC",
        help="type=oci|docker|local|tar,dest=PATH or type=registry",
    )
    add("--load", action="store_true", help="keep the image in the local store whatever else is written")
    add("--push", action="store_true", help="push the image to the registries of its names")
    note = "annotate the image; WHERE is manifest (default), index, manifest-descriptor or index-descriptor, or several"
    add("--annotation", action="append", default=[], metavar="[WHERE,…:]KEY=VALUE", help=note)
    keyed = "for RUN --mount=type=secret; with cache=key a changed secret runs its steps again"
    add("--secret", action="append", default=[], metavar="id=ID,src=FILE|env=VAR[,cache=key]", help=keyed)
    add("--ssh", action="append", default=[], metavar="default|ID[=SOCKET]", help="an agent for RUN --mount=type=ssh")
    explain = "say of every instruction whether it was found in the cache, and if not, what has changed"
    add("--explain", action="store_true", help=explain)
    check = (
        "run a random part of the steps that are in the cache again (all by default) and compare what they make; "
        "another content is an error unless warn is given, other times of files are only reported"
    )
    add("--cache-check", type=cache_check, default=None, metavar="PERCENT%[,warn]", help=check)
    allow = "grant security.insecure, network.host, device[=NAME] or buildx.local.delete"
    add("--allow", action="append", default=[], metavar="ENTITLEMENT", help=allow)
    caches = "take results from a cache elsewhere: type=registry|local|s3,…[,trust=read-only|verify][,mounts=true]"
    add("--cache-from", action="append", default=[], metavar="SPEC", help=caches)
    caches = "give results to a cache elsewhere: type=registry|local|inline|s3,…[,mode=max][,mounts=true]"
    add("--cache-to", action="append", default=[], metavar="SPEC", help=caches)
    add("--jobs", "-j", type=int, default=0, metavar="N", help="run at most N instructions at once")
    note = "how to show progress (default: $BUILDKIT_PROGRESS, or auto)"
    add("--progress", default=None, type=progress_kind, choices=KINDS, help=note)
    shell = "when a RUN fails, open a shell in its sandbox: on-error or off (default: off)"
    add("--debug-shell", default="off", choices=("on-error", "off"), metavar="WHEN", help=shell)
    add("-q", "--quiet", action="store_true", help="print the image id only")
    add("--iidfile", default="", metavar="FILE", help="write the image id to a file (of several targets, a line each)")
    add("--metadata-file", default="", metavar="FILE", help="write digests and names of the result to a file, as JSON")
    call = "what to do: " + ", ".join(CALLS) + " (default: build)"
    add("--call", type=call_option, default=Call(), metavar="METHOD[,format=text|json]", help=call)
    add("--print", dest="call", type=call_option, help=argparse.SUPPRESS)
    add("--check", dest="call", action="store_const", const=Call("check"), help="the same as --call=check")
    add_dns_arguments(parser)
    snapshotter_argument(parser)
    note = "whose ids RUN has as root: host (default) or auto, a range that nobody else has"
    add("--userns", default="host", choices=("host", "auto"), metavar="WHOSE", help=note)
    resources.add_arguments(parser, "each RUN")
    add(
        "--build-resource", action="append", default=[], metavar="NAME=VALUE,…", help="--resource for all RUNs together"
    )
    locked_argument(parser)
    add_plan_arguments(parser)


def add_dns_arguments(parser: argparse.ArgumentParser) -> None:
    """--dns and its relatives, as `docker run` has them."""
    add = parser.add_argument
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a name server, instead of those of this machine")
    add("--dns-search", action="append", default=[], metavar="DOMAIN", help="a domain to search names in")
    add("--dns-option", action="append", default=[], metavar="OPTION", help="an option of resolv.conf(5)")


def _require_address(text: str) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise UsageError(f'--dns "{text}" is not an address') from error


def dns_options(args: argparse.Namespace) -> Dns:
    """--dns and its relatives as values. Raises UsageError for what is no address, or would be another line."""
    for address in args.dns:
        _require_address(address)
    for option, words in (("--dns-search", args.dns_search), ("--dns-option", args.dns_option)):
        for word in words:
            if not word or word != "".join(word.split()):
                raise UsageError(f'{option} "{word}" is not one word')
    return Dns(tuple(args.dns), tuple(args.dns_search), tuple(args.dns_option))


def snapshotter_argument(parser: argparse.ArgumentParser) -> None:
    """How layers are merged; also for `run`."""
    note = "how layers are merged: overlay, fuse, native (copies), or auto: the first that works (default)"
    choices = ("auto", "overlay", "fuse", "native")
    parser.add_argument("--snapshotter", default="auto", choices=choices, metavar="NAME", help=note)


def locked_argument(parser: argparse.ArgumentParser) -> None:
    """--locked; None where it is not given, "" for the lock file beside the Dockerfile."""
    note = (
        "use exactly what the lock file (default: the one beside the Dockerfile) says of images, URLs and git "
        "references, and refuse what is not in it or has changed; see `pybuild lock`"
    )
    parser.add_argument("--locked", default=None, metavar="=FILE", help=note)


def progress(wanted: str | None, environ: Mapping[str, str]) -> str:
    """What --progress, or else buildx's variable, asks for. Raises UsageError for a value that is not known."""
    named = environ.get("BUILDKIT_PROGRESS", "")
    if wanted is not None or not named:
        return wanted or "auto"
    if progress_kind(named) not in KINDS:
        raise UsageError(f'BUILDKIT_PROGRESS is "{named}"', hint=f"it may be {', '.join(KINDS)}")
    return progress_kind(named)


def call_option(text: str) -> Call:
    """A value of --call. Raises ArgumentTypeError for one that is not known."""
    name, *fields = text.split(",")
    call = Call({"lint": "check", "": "build"}.get(name, name))
    if call.name not in CALLS:
        raise argparse.ArgumentTypeError(f'"{name}" is not known, expected one of {", ".join(CALLS)}')
    for field in fields:
        key, _, value = field.partition("=")
        if key == "format" and value in CALL_FORMATS:
            call = call._replace(format=value)
        elif key != "ignorestatus":
            raise argparse.ArgumentTypeError(f'field "{field}" is not known, expected format=text or format=json')
    return call


def cache_check(text: str) -> CacheCheck:
    """A value of --cache-check. Raises ArgumentTypeError for one that is not known."""
    number, *words = text.split(",")
    if number in ("warn", "error"):
        number, words = "100%", [number, *words]
    try:
        percent = float(number.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f'"{number}" is not a part of 100%, expected for instance 10%')
    for word in words:
        if word not in ("warn", "error"):
            raise argparse.ArgumentTypeError(f'field "{word}" is not known, expected warn or error')
    return CacheCheck(percent, warns=words[-1:] == ["warn"])


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that decide what is built, whatever happens with it."""
    add = parser.add_argument
    add("-f", "--file", default="", metavar="FILE", help="the Dockerfile (default: PATH/Dockerfile; - is stdin)")
    target = (
        "build this stage (default: the last); several are built together: each is an image of its own, tagged "
        "NAME:STAGE or NAME:TAG-STAGE, and a directory of its own in local and tar outputs"
    )
    add("--target", action="append", default=[], metavar="STAGE", help=target)
    add("--build-arg", action="append", default=[], metavar="KEY[=VALUE]", help="set an ARG, or pass it on from here")
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="DIR, a git or http URL, oci-layout://DIR[:tag], docker-image://NAME or target:STAGE",
    )
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="add a label to the image")
    platform = "the platform to build for; several make an image for each, under one index"
    add("--platform", action="append", default=[], metavar="OS/ARCH[/VARIANT],…", help=platform)
    pull = "ask the registries what the names of images mean now; without it only for those that the store has not got"
    add("--pull", action="store_true", help=pull)
    add("--no-cache", action="store_true", help="run every instruction")
    add("--no-cache-filter", action="append", default=[], metavar="STAGE", help="run every instruction of a stage")
    network = "the network of RUN: none, host, bridge (the build's own), default (bridge, or host without /dev/net/tun)"
    add("--network", default="default", metavar="MODE", help=network)
    modes = "which bits of modes of context files count for the cache: full (default), or git: the executable bit only"
    add("--cache-key-mode", default="full", choices=("full", "git"), help=modes)
    add("--add-host", action="append", default=[], metavar="HOST:IP", help="add a line to /etc/hosts of RUN")
    add("--shm-size", default="", metavar="BYTES", help="the size of /dev/shm of RUN")
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]", help="a resource limit of RUN")
    add("--hostname", default="", metavar="NAME", help="the name of the machine in RUN (default: buildkitsandbox)")
    add_security_arguments(parser, "RUN", " (with --allow device)")


def add_security_arguments(parser: argparse.ArgumentParser, whose: str, condition: str = "") -> None:
    """--security-opt and --device; also for `run`."""
    note = f"seccomp=FILE (Docker's form), seccomp=unconfined, or no-new-privileges, for {whose}"
    parser.add_argument("--security-opt", action="append", default=[], metavar="OPTION", help=note)
    note = f"give {whose} a device: a CDI name, or a path of the machine{condition}"
    parser.add_argument("--device", action="append", default=[], metavar="NAME|PATH[:PATH[:rwm]]", help=note)


def plan_options(args: argparse.Namespace, env: Environment) -> BuildOptions:
    """The options of `add_plan_arguments` as values. Raises UsageError for one that is malformed."""
    given = read_options(attributes(args, env), platform_value(host_platform()))
    if any(fields.get("disabled", "").lower() != "true" for fields in given.attestations.values()):
        raise UsageError(
            "attestations are not made", hint="leave out BUILDKIT_ATTEST_SBOM and BUILDKIT_ATTEST_PROVENANCE"
        )
    platforms = list(map(str, given.target_platforms))
    return BuildOptions(
        context=args.context,
        dockerfile=args.file,
        target=given.target,
        build_args=given.build_args,
        labels=given.labels,
        platform=platforms[0] if platforms else "",
        named_contexts=dict(_pair(text, "--build-context") for text in args.build_context),
        no_cache=given.no_cache == (),
        cache_key_mode=args.cache_key_mode,
        no_cache_filter=given.no_cache or (),
        network="default" if given.network == "sandbox" else given.network,
        extra_hosts=tuple([f"{each.host}:{each.ip}" for each in given.extra_hosts]),
        shm_size=given.shm_size,
        ulimits=tuple(map(str, given.ulimits)),
        targets=tuple(args.target) if len(args.target) > 1 else (),
        platforms=tuple(platforms) if len(platforms) > 1 else (),
        multi_platform=given.multi_platform,
        hostname=args.hostname or given.hostname,
        devices=tuple(args.device),
        security_opt=parse_security_options(args.security_opt, env.cwd).words(),
        cache_namespace=given.cache_namespace,
    )


def attributes(args: argparse.Namespace, env: Environment) -> dict[str, str]:
    """The words of `add_plan_arguments` as the attributes of a frontend, as buildx writes them. Raises UsageError."""
    found = {BUILD_ARG + name: value for name, value in _build_args(args.build_arg, env).items()}
    found.update((LABEL + name, value) for name, value in (_pair(text, "--label") for text in args.label))
    texts = {
        "target": args.target[0] if args.target else "",
        "platform": ",".join(_platforms(args.platform)),
        # Whether it is a bridge can differ between machines, and no result depends on it.
        "force-network-mode": "" if args.network in ("default", BRIDGE) else args.network,
        "image-resolve-mode": "pull" if args.pull else "",
        "add-hosts": _joined(_host_field(text) for text in args.add_host),
        "shm-size": _bytes(args.shm_size, "--shm-size"),
        "ulimit": _joined(args.ulimit),
        "no-cache": ",".join(args.no_cache_filter),
    }
    found.update((name, text) for name, text in texts.items() if text)
    if args.no_cache:
        found["no-cache"] = ""
    return found


def _platforms(words: Sequence[str]) -> list[str]:
    """Every --platform once; `local` is this machine's."""
    named = [host_platform() if each.lower() == "local" else each for word in words for each in word.split(",")]
    if len(named) < 2:
        return named
    return list(dict.fromkeys(map(str, read_platforms(",".join(named), platform_value(host_platform())))))


def _joined(words: Iterable[str]) -> str:
    """Words as the fields of one CSV line."""
    fields = ['"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word for word in words]
    return ",".join(fields)


def _host_field(text: str) -> str:
    """`HOST:IP` or `HOST=IP` as HOST=IP; an IPv6 address may be in brackets."""
    host, separator, address = text.replace("=", ":", 1).partition(":")
    if not host or not separator:
        raise UsageError(f'--add-host "{text}" is not HOST:IP')
    bracketed = address.startswith("[") and address.endswith("]")
    return f"{host}={address[1:-1] if bracketed else address}"


def _bytes(text: str, option: str) -> str:
    """A size such as 64m in bytes."""
    if not text:
        return ""
    from grammar.errors import DockerfileError
    from grammar.values import parse_size

    try:
        return str(parse_size(text))
    except DockerfileError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from error


def _build_args(words: Sequence[str], env: Environment) -> dict[str, str]:
    """--build-arg, with SOURCE_DATE_EPOCH from the environment as buildx passes it on."""
    found = {}
    if env.environ.get("SOURCE_DATE_EPOCH"):
        found["SOURCE_DATE_EPOCH"] = env.environ["SOURCE_DATE_EPOCH"]
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            found[key] = value
        elif key in env.environ:
            found[key] = env.environ[key]
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or (not equals and option != "--label"):
        raise UsageError(f'{option} "{text}" has no "="', hint=f"write {option} NAME=VALUE")
    return key, value


def secret(text: str, cwd: str) -> SecretSource:
    """One `--secret` as a value. Raises UsageError when it is malformed, BuildError when its file is missing."""
    fields = dict(_pair(field, "--secret") for field in text.split(","))
    unknown = set(fields) - {"id", "src", "source", "env", "type", "cache"}
    if unknown:
        hint = "the fields are id, src, env, type and cache"
        raise UsageError(f'--secret "{text}" has an unknown field "{min(unknown)}"', hint=hint)
    if fields.get("cache", "key") != "key":
        hint = "cache=key runs a step again when the secret has changed; without it a secret never does"
        raise UsageError(f'--secret "{text}": cache is "{fields["cache"]}", expected key', hint=hint)
    path = fields.get("src") or fields.get("source") or ""
    variable = fields.get("env", "")
    kind = fields.get("type", "")
    if kind == "env" and not variable:
        variable, path = path or fields.get("id", ""), ""
    identity = fields.get("id") or variable or os.path.basename(path)
    if not identity:
        raise UsageError(f'--secret "{text}" has no id', hint="write --secret id=NAME,src=FILE")
    if not path and not variable:
        variable = identity
    full = os.path.join(cwd, os.path.expanduser(path)) if path else ""
    if full and not os.path.exists(full):
        raise BuildError(f'secret "{identity}": {path} does not exist')
    return SecretSource(identity, "" if variable else full, variable, "cache" in fields)


def agent(text: str, env: Environment) -> tuple[str, str]:
    """One `--ssh` as its id and the path of the agent's socket. Raises UsageError when there is no agent."""
    identity, _, socket = text.partition("=")
    socket = socket or env.environ.get("SSH_AUTH_SOCK", "")
    if not socket:
        raise UsageError(f'--ssh "{text}" has no agent', hint="start ssh-agent, or name its socket: --ssh default=PATH")
    path = os.path.join(env.cwd, os.path.expanduser(socket))
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise UsageError(f'--ssh "{text}": {(error.strerror or "").lower()}') from error
    if not is_socket:
        raise UsageError(
            f'--ssh "{text}" is not the socket of an agent', hint="load a key with ssh-add, then: --ssh default"
        )
    return identity, path
