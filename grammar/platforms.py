"""Platforms: `os[(version+feature)]/architecture[/variant]`, how they are spelled, and which runs on which.

The machine's own platform is an argument; nothing is asked of the system. The rules are containerd's.
"""

import re
from collections.abc import Iterable
from functools import cache
from posixpath import normpath
from typing import NamedTuple

from grammar.characters import quoted, to_lower
from grammar.errors import DockerfileError

_KNOWN_OS = (
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl",
    "netbsd", "openbsd", "plan9", "solaris", "windows", "zos",
)  # fmt: skip
_KNOWN_ARCHITECTURES = (
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips",
    "mipsle", "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x",
    "sparc", "sparc64", "wasm",
)  # fmt: skip
_ARM64_V9_BASE_MINOR = 5
"""arm64 v9.n includes v8.(n+5)."""

_WINDOWS_LTSC_BUILDS = (20348, 26100)


class Platform(NamedTuple):
    """What a binary runs on."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The specifier, with version and features in parentheses."""
        features = sorted({feature for feature in self.os_features if feature})
        options = _encoded(self.os_version) + "".join(f"+{_encoded(feature)}" for feature in features)
        return _joined(self.os + (f"({options})" if options else ""), self.architecture, self.variant)

    @property
    def short(self) -> str:
        """The specifier without version and features."""
        return _joined(self.os, self.architecture, self.variant)


def parse_platform(text: str, default: Platform) -> Platform:
    """The platform that `text` names; what it leaves open comes from `default`. It is as written but for aliases:
    `normalize` gives the form to compare. Raises DockerfileError."""
    first, *others = text.split("/", 3)
    match = _os_pattern().fullmatch(first)
    if match is None:
        raise DockerfileError(f"platform {quoted(text)} has an unreadable system {quoted(first)}, expected os/arch")
    for other in others:
        if not _component_pattern().fullmatch(other):
            raise DockerfileError(f"platform {quoted(text)} has an unreadable part {quoted(other)}")
    if len(others) > 2:
        raise DockerfileError(f"platform {quoted(text)} has too many parts, expected os/arch[/variant]")
    system = Platform(
        os=_system(match[1], default),
        architecture="",
        os_version=_decoded(match[2] or "", text),
        os_features=tuple(_decoded(feature, text) for feature in (match[3] or "").split("+") if feature),
    )
    if others:
        return _with_architecture(system, others)
    return _from_one_word(text, system, default)


def _from_one_word(text: str, system: Platform, default: Platform) -> Platform:
    """A system alone runs on the default architecture, an architecture alone has the default system."""
    if system.os in _KNOWN_OS:
        variant = default.variant if default.architecture == "arm" and default.variant != "v7" else ""
        return system._replace(architecture=default.architecture, variant=variant)
    platform = _with_architecture(system, [text])
    if platform.architecture in _KNOWN_ARCHITECTURES:
        return platform._replace(os=default.os)
    raise DockerfileError(f"platform {quoted(text)} is neither a system nor an architecture that is known")


def _with_architecture(system: Platform, parts: list[str]) -> Platform:
    architecture, variant = _architecture(parts[0], parts[1] if len(parts) > 1 else "")
    if len(parts) == 1 and (architecture, variant) == ("arm", "v7"):
        variant = ""
    if len(parts) > 1 and (architecture, variant) == ("arm64", ""):
        variant = "v8"
    return system._replace(architecture=architecture, variant=variant)


def normalize(platform: Platform, default_os: str = "linux") -> Platform:
    """The one spelling of a platform: aliases resolved, a variant that says nothing dropped."""
    architecture, variant = _architecture(platform.architecture, platform.variant)
    return platform._replace(
        os=to_lower(platform.os) if platform.os else default_os,
        architecture=architecture,
        variant=variant,
        os_features=tuple(sorted(set(platform.os_features))),
    )


def _system(text: str, default: Platform) -> str:
    lower = to_lower(text) or default.os
    return "darwin" if lower == "macos" else lower


_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
}
_VARIANT_ALIASES = {
    "amd64": {"v1": ""},
    "arm64": {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"},
    "arm": {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"},
}
_FIXED = {"i386": ("386", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6")}
"""Names that say the variant too."""


def _architecture(architecture: str, variant: str) -> tuple[str, str]:
    """Canonical architecture and variant."""
    architecture, variant = to_lower(architecture), to_lower(variant)
    if architecture in _FIXED:
        return _FIXED[architecture]
    architecture = _ALIASES.get(architecture, architecture)
    return architecture, _VARIANT_ALIASES.get(architecture, {}).get(variant, variant)


def matches(target: Platform, candidate: Platform, *, strict: bool = False) -> bool:
    """Whether what is made for `candidate` runs on `target`; `strict`: only if they are the same."""
    return _rank(target, candidate, strict) is not None


def best_first(target: Platform, candidates: Iterable[Platform], *, strict: bool = False) -> list[Platform]:
    """The candidates that run on `target`, the nearest first, equals in the given order."""
    ranked = [(_rank(target, candidate, strict), candidate) for candidate in candidates]
    found = [(rank, -len(candidate.os_features), candidate) for rank, candidate in ranked if rank is not None]
    return [candidate for _, _, candidate in sorted(found, key=lambda item: item[:2])]


def _rank(target: Platform, candidate: Platform, strict: bool) -> int | None:
    """How far down the list of what `target` runs `candidate` stands; None if it is not on it."""
    normal = normalize(target)
    wanted = [(normal.architecture, normal.variant)] if strict else _runnable(normal.architecture, normal.variant)
    other = normalize(candidate)
    if normal.os != other.os or not _version_fits(normal, other) or not _features_fit(normal, other):
        return None
    for rank, (architecture, variant) in enumerate(wanted):
        if _architecture(architecture, variant) == (other.architecture, other.variant):
            return rank
    return None


def _runnable(architecture: str, variant: str) -> list[tuple[str, str]]:
    """Architectures and variants whose binaries run on the given one, itself first."""
    level = int(variant[1:]) if re.fullmatch("v[0-9]{1,3}", variant) else 0
    if architecture == "amd64":
        return [("amd64", variant), *(("amd64", f"v{lower}") for lower in range(level - 1, 0, -1)), ("386", "")]
    if architecture == "arm":
        return [("arm", variant), *(("arm", f"v{lower}") for lower in range(level - 1, 4, -1))]
    if architecture == "arm64":
        return _runnable_on_arm64(variant or "v8")
    return [(architecture, variant)]


def _runnable_on_arm64(variant: str) -> list[tuple[str, str]]:
    match = re.fullmatch(r"v(8|9)(?:\.([0-9]))?", variant)
    major, minor = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    if not match or (major == 9 and minor > 7):
        return []
    versions = [(major, lower) for lower in range(minor, -1, -1)]
    if major == 9:
        versions += [(8, lower) for lower in range(minor + _ARM64_V9_BASE_MINOR, -1, -1) if lower <= 9]
    names = [f"v{number}.{lower}" if lower else f"v{number}" for number, lower in versions]
    return [*(("arm64", name) for name in names), *_runnable("arm", "v8")]


def _features_fit(target: Platform, candidate: Platform) -> bool:
    features = set(candidate.os_features)
    if target.os == "windows":
        features.discard("win32k")
    return features <= set(target.os_features)


def _version_fits(target: Platform, candidate: Platform) -> bool:
    """Only Windows has versions that matter: a container's build may not be newer than the host's, nor older than
    the long-term release before it; hosts before Windows Server 2022 want their own build."""
    host = _windows_version(target.os_version) if target.os == "windows" else None
    if host is None or not candidate.os_version:
        return True
    guest = _windows_version(candidate.os_version) or (0, 0, 0)
    if host[:2] != guest[:2]:
        return False
    if host[2] < _WINDOWS_LTSC_BUILDS[0]:
        return host[2] == guest[2]
    earlier = [build for build in _WINDOWS_LTSC_BUILDS if build < host[2]]
    return (earlier[-1] if earlier else _WINDOWS_LTSC_BUILDS[0]) <= guest[2] <= host[2]


def _windows_version(text: str) -> tuple[int, int, int] | None:
    match = re.match(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,5})(?:\.|\Z)", text)
    if match is None:
        return None
    version = int(match[1]), int(match[2]), int(match[3])
    return version if version[0] < 256 and version[1] < 256 and version[2] < 65536 and any(version) else None


def _joined(*parts: str) -> str:
    return normpath("/".join(part for part in parts if part)) if parts[0] else "unknown"


def _encoded(text: str) -> str:
    for char in "%+()/":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _decoded(text: str, platform: str) -> str:
    """`text` with %XX resolved."""
    if "%" not in text:
        return text
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise DockerfileError(f"platform {quoted(platform)} has a bad %-escape in {quoted(text)}")
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(text).decode("utf-8", "surrogateescape")


@cache
def _os_pattern() -> re.Pattern[str]:
    return re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?")


@cache
def _component_pattern() -> re.Pattern[str]:
    return re.compile("[A-Za-z0-9_.-]+")
