"""The values of a frontend's attributes: each text that BuildKit's front end takes, checked, and made into a value.

The command line's words end here as well, so that both refuse the same. Knows no option and no Dockerfile.
Source: BuildKit, frontend attributes of the Dockerfile front end; docker buildx build reference.
"""

from builder.errors import UsageError
from cache.namedtuple import NamedTuple
from grammar.platforms import Platform

_INT64 = (-(1 << 63), (1 << 63) - 1)
_UINT64 = (0, (1 << 64) - 1)
RESOLVE_MODES = ("default", "pull", "local")
NETWORK_MODES = ("sandbox", "host", "none")
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
_LARGEST_CPU = 8192
_RESOURCES = {
    "memory": (_INT64, "more than 0"),
    "memswap": (_INT64, "-1 for no limit, or more than 0"),
    "cpushares": (_UINT64, "more than 0"),
    "cpuperiod": (_UINT64, "more than 0"),
    "cpuquota": (_INT64, "more than 0"),
}
_CPU_SETS = ("cpusetcpus", "cpusetmems")
RESOURCES = (*_RESOURCES, *_CPU_SETS)


class ExtraHost(NamedTuple):
    """A line of /etc/hosts."""

    host: str
    ip: str


class Ulimit(NamedTuple):
    """A resource limit of setrlimit(2); -1 is no limit."""

    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


class Resources(NamedTuple):
    """What a step may use; 0 and "" are no limit. Sizes are bytes, times microseconds."""

    memory: int = 0
    memswap: int = 0
    cpushares: int = 0
    cpuperiod: int = 0
    cpuquota: int = 0
    cpusetcpus: str = ""
    cpusetmems: str = ""


def read_int(text: str, what: str, bounds: tuple[int, int] = _INT64) -> int:
    """A decimal number within 64 bits; a sign only where there can be negative ones."""
    digits = text[1:] if text[:1] in ("+", "-") and bounds[0] < 0 else text
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f'{what} "{text}" is not a number')
    value = int(text) if len(digits.lstrip("0")) <= 20 else bounds[1] + 1
    if not bounds[0] <= value <= bounds[1]:
        raise UsageError(f'{what} "{text}" does not fit 64 bits')
    return value


def read_bool(text: str, what: str) -> bool:
    """True or false in one of Go's spellings."""
    from grammar.values import parse_bool

    value = parse_bool(text)
    if value is None:
        raise UsageError(f'{what} "{text}" is not true or false')
    return value


def read_fields(text: str, what: str) -> list[str]:
    """Comma-separated fields, quotes around a field that has a comma."""
    from grammar.errors import DockerfileError
    from grammar.mount_flag import split_fields

    try:
        return split_fields(text)
    except DockerfileError as error:
        raise UsageError(f'{what} "{text}": {error.message}', hint=error.hint) from error


def read_platforms(text: str, default: Platform) -> tuple[Platform, ...]:
    """The platforms to build for, in one spelling each; what is left open comes from `default`."""
    from grammar.errors import DockerfileError
    from grammar.platforms import normalize, parse_platform

    try:
        return tuple([normalize(parse_platform(word, default)) for word in text.split(",")]) if text else ()
    except DockerfileError as error:
        raise UsageError(error.message, hint=error.hint) from error


def read_resolve_mode(text: str) -> str:
    """How a base image's name is looked up."""
    if text not in ("", *RESOLVE_MODES):
        raise UsageError(f'image-resolve-mode "{text}" is not known, expected one of {", ".join(RESOLVE_MODES)}')
    return text or "default"


def read_network(text: str) -> str:
    """The network of steps that name none."""
    if text not in ("", *NETWORK_MODES):
        raise UsageError(f'--network "{text}" is not known, expected one of {", ".join(NETWORK_MODES)}')
    return text or "sandbox"


def read_extra_hosts(text: str) -> tuple[ExtraHost, ...]:
    """Lines of /etc/hosts from HOST=IP fields; names are written small."""
    return tuple([_extra_host(field) for field in read_fields(text, "add-host")]) if text else ()


def _extra_host(field: str) -> ExtraHost:
    import ipaddress

    from grammar.characters import to_lower

    host, equals, text = to_lower(field).partition("=")
    if not equals:
        raise UsageError(f'--add-host "{field}" is not HOST=IP')
    try:
        address = ipaddress.ip_address(text)
        if "%" in text:
            raise ValueError("a zone means nothing in /etc/hosts")
    except ValueError as error:
        raise UsageError(f'--add-host "{field}" has no valid IP address: "{text}"') from error
    plain = getattr(address, "ipv4_mapped", None) or address
    return ExtraHost(host, str(plain))


def read_shm_size(text: str) -> int:
    """Bytes of /dev/shm; 0 is the default."""
    return read_int(text, "shm-size") if text else 0


def read_ulimits(text: str) -> tuple[Ulimit, ...]:
    """Resource limits from NAME=SOFT[:HARD] fields."""
    return tuple([read_ulimit(field) for field in read_fields(text, "ulimit")]) if text else ()


def read_ulimit(field: str) -> Ulimit:
    """One NAME=SOFT[:HARD]; the hard limit is the soft one where it is not said."""
    name, equals, values = field.partition("=")
    if not equals:
        raise UsageError(f'--ulimit "{field}" is not NAME=SOFT[:HARD]', hint="-1 means no limit")
    if name not in ULIMITS:
        raise UsageError(f'--ulimit "{field}" has an unknown name "{name}"', hint=f"known are {', '.join(ULIMITS)}")
    parts = values.split(":")
    if len(parts) > 2:
        raise UsageError(f'--ulimit "{field}" has more than a soft and a hard limit')
    soft, hard = (read_int(part, f"--ulimit {name}: limit") for part in (parts[0], parts[-1]))
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(f'--ulimit "{field}" has a soft limit above the hard one')
    return Ulimit(name, soft, hard)


def read_resource(name: str, text: str) -> int | str:
    """One value of Resources; "" is none."""
    if name in _CPU_SETS:
        cpu_set(text, name)
        return text
    bounds, expected = _RESOURCES[name]
    if not text:
        return 0
    value = read_int(text, name, bounds)
    if value <= 0 and not (value == -1 and name == "memswap"):
        raise UsageError(f'{name} "{text}" is too small, expected {expected}')
    return value


def cpu_set(text: str, what: str) -> str:
    """A list of numbers and ranges such as `0-3,5`, in the form that the kernel takes: no blanks, no empty places."""
    from grammar.characters import trim

    found = []
    for word in text.split(","):
        first, dash, last = map(trim, word.partition("-"))
        if not first and not dash:
            continue
        numbers = [_cpu(part, what, text) for part in ((first, last) if dash else (first,))]
        if numbers[-1] < numbers[0]:
            raise UsageError(f'{what} "{text}" has the range "{trim(word)}" the wrong way round')
        found.append("-".join(map(str, numbers)))
    return ",".join(found)


def _cpu(text: str, what: str, whole: str) -> int:
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f'{what} "{whole}" is not a list of numbers and ranges', hint='for example 0-2, or "0,2"')
    if len(digits.lstrip("0")) > 4 or int(digits) > _LARGEST_CPU:
        raise UsageError(f'{what} "{whole}" has a number above {_LARGEST_CPU}')
    return int(digits)
