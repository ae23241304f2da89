"""--security-opt: the seccomp profile and no_new_privs of steps and containers, in the words of `docker run`.

Texts to values; a profile's file is read here, and compiled for a set of capabilities when a process needs it.
"""

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import BuildError, UsageError
from cache.digest import sha256_hex
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from builder.sandbox.spec import ProcessSpec

UNCONFINED, BUILTIN = "unconfined", "builtin"
_MAX_PROFILE = 4 << 20


class SecurityOptions(NamedTuple):
    """What --security-opt says. `profile` is the JSON of a seccomp profile, "" for the default one."""

    profile: str = ""
    is_unconfined: bool = False
    no_new_privileges: bool = False

    def words(self) -> tuple[str, ...]:
        """What distinguishes them from none, for a cache key."""
        found = ["no-new-privileges"] if self.no_new_privileges else []
        if self.is_unconfined:
            found.append(f"seccomp={UNCONFINED}")
        if self.profile:
            found.append(f"seccomp=sha256:{sha256_hex(self.profile.encode('utf-8', 'replace'))}")
        return tuple(found)

    def applied(self, spec: "ProcessSpec") -> "ProcessSpec":
        """The spec with them. Raises BuildError for a profile that is malformed."""
        return spec._replace(
            seccomp=spec.seccomp and not self.is_unconfined,
            seccomp_filter=_compiled(self.profile, _capabilities(spec)) if self.profile else "",
            no_new_privileges=spec.no_new_privileges or self.no_new_privileges,
        )


DEFAULT = SecurityOptions()


def parse_security_options(words: Iterable[str], cwd: str) -> SecurityOptions:
    """`seccomp=FILE|unconfined|builtin` and `no-new-privileges[=true|false]`; the last of each counts.

    Raises UsageError for an option that is not one of these, BuildError for a file that cannot be read.
    """
    options = DEFAULT
    for word in words:
        key, separator, value = word.partition("=" if "=" in word else ":")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            options = options._replace(no_new_privileges=value != "false")
        elif key == "seccomp" and separator and value:
            profile = "" if value in (UNCONFINED, BUILTIN) else _read(os.path.join(cwd, value), value)
            options = options._replace(profile=profile, is_unconfined=value == UNCONFINED)
        else:
            raise UsageError(
                f'--security-opt "{word}" is not known',
                hint="known are seccomp=FILE, seccomp=unconfined and no-new-privileges",
            )
    if options.profile:
        _compiled(options.profile, frozenset())
    return options


def _capabilities(spec: "ProcessSpec") -> frozenset[str]:
    from builder.sandbox.capabilities import NAMES

    return frozenset(NAMES if spec.insecure else spec.capabilities)


def _read(path: str, shown: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_PROFILE + 1)
    except OSError as error:
        raise BuildError(f"seccomp profile {shown}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"seccomp profile {shown}: not UTF-8") from error
    if len(text) > _MAX_PROFILE:
        raise BuildError(f"seccomp profile {shown}: larger than {_MAX_PROFILE >> 20} MiB")
    return text


@functools.lru_cache(maxsize=8)
def _compiled(profile: str, capabilities: frozenset[str]) -> str:
    import base64

    from builder.sandbox.seccomp_profile import compile_profile

    return base64.b64encode(compile_profile(profile, capabilities)).decode("ascii")
