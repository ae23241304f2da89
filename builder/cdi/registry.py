"""The devices that the machine's CDI specs describe: files found, read, and asked by name.

    /etc/cdi/*.json|yaml|yml        what the administrator wrote
    /var/run/cdi/*.json|yaml|yml    what drivers wrote; wins over the former

A device is `VENDOR/CLASS=NAME`. Only the machine's administrator can write there, so a spec is trusted as to what it
names, and still checked as to its form. Knows no sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from builder.cdi.edits import Edits, read_edits, together
from builder.errors import BuildError
from cache.namedtuple import NamedTuple
from grammar.errors import nearest

SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")
_SUFFIXES = (".json", ".yaml", ".yml")
_MAX_SIZE = 4 << 20
_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:"
_SEPARATORS = "_-.:"


class Device(NamedTuple):
    """A device by its full name, and what a step gets with it."""

    name: str
    edits: Edits


class Registry:
    """The devices of some directories, read at the first question."""

    def __init__(self, directories: Sequence[str] = SPEC_DIRS) -> None:
        self._directories = directories
        self._devices: dict[str, Device] | None = None

    def find(self, wanted: str) -> tuple[Device, ...]:
        """The devices of a name: `VENDOR/CLASS=NAME`, or all of a kind (`=*`), or its first (`VENDOR/CLASS`).

        Empty when there is none. Raises BuildError for a name that is none, or a spec that is malformed.
        """
        kind, equals, name = wanted.partition("=")
        check_kind(kind, wanted)
        if equals and name != "*":
            check_name(name, wanted)
            device = self._all().get(wanted)
            return (device,) if device else ()
        found = [device for full, device in sorted(self._all().items()) if full.partition("=")[0] == kind]
        return tuple(found if equals else found[:1])

    def hint(self, wanted: str) -> str:
        """What the user may have meant, or where devices come from."""
        names = sorted(self._all())
        if not names:
            return f"no CDI spec describes a device: {' and '.join(self._directories)} have none"
        close = nearest(wanted, names)
        return f"did you mean {close}?" if close else f"there are {', '.join(names[:8])}"

    def _all(self) -> dict[str, Device]:
        if self._devices is None:
            found: dict[str, Device] = {}
            # A later directory wins.
            for path in _spec_files(self._directories):
                found.update((device.name, device) for device in _devices(_document(path), path))
            self._devices = found
        return self._devices


def check_kind(kind: str, shown: str) -> None:
    """BuildError unless `kind` is VENDOR/CLASS: a vendor is a domain's labels, a class a word (CDI spec, "kind")."""
    vendor, slash, name = kind.partition("/")
    if not slash or not all(_is_word(part, "_-.") for part in (vendor, name)) or not vendor[0].isalpha():
        raise BuildError(f'device "{shown}" is not VENDOR/CLASS=NAME', hint="CDI names look like vendor.com/gpu=0")


def check_name(name: str, shown: str) -> None:
    """BuildError unless `name` is a device's own name."""
    if not _is_word(name, _SEPARATORS):
        raise BuildError(f'device "{shown}" is not VENDOR/CLASS=NAME', hint="CDI names look like vendor.com/gpu=0")


def _is_word(text: str, separators: str) -> bool:
    """Letters and digits of ASCII, with separators inside."""
    ends = text[:1] + text[-1:]
    return (
        bool(text) and ends.isalnum() and set(text) <= set(_NAME) and not set(text) & (set(_SEPARATORS) - {*separators})
    )


def _spec_files(directories: Iterable[str]) -> list[str]:
    found = []
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BuildError(f"CDI specs of {directory}: {(error.strerror or str(error)).lower()}") from error
        found += [os.path.join(directory, name) for name in names if name.endswith(_SUFFIXES)]
    return found


def _document(path: str) -> Any:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            content = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise BuildError(f"CDI spec {path}: {(error.strerror or str(error)).lower()}") from error
    if len(content) > _MAX_SIZE:
        raise BuildError(f"CDI spec {path}: larger than {_MAX_SIZE} bytes")
    try:
        return _parse(path, content)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"CDI spec {path}: {error}") from error


def _parse(path: str, content: bytes) -> Any:
    if path.endswith(".json"):
        import json

        return json.loads(content)
    import yaml

    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def _devices(document: Any, path: str) -> list[Device]:
    """The devices of one spec, each with what the spec gives to all of them."""
    try:
        kind = document["kind"]
        check_kind(kind, kind)
        if not str(document["cdiVersion"]).removeprefix("v").startswith(("0.", "1.")):
            raise ValueError(f"version {document['cdiVersion']} is not known, expected 0 or 1")
        common = read_edits(document.get("containerEdits"))
        found = []
        for entry in document["devices"]:
            check_name(entry["name"], f"{kind}={entry['name']}")
            found.append(Device(f"{kind}={entry['name']}", together(common, read_edits(entry.get("containerEdits")))))
        return found
    except KeyError as error:
        raise BuildError(f"CDI spec {path}: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BuildError(f"CDI spec {path}: {error}") from error
