"""What differs between the key of a former record and the one that was not found: manifests in, differences out.

Pure: knows manifests (`ops.definition`), notes (`notes`) and lists of files, and no store. Values of variables whose
names look like secrets are left out, digests of secrets are only compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from builder.explain.files import FileChange, FileList, file_changes
from builder.redact import is_secret_name
from cache.namedtuple import NamedTuple

ListOf: TypeAlias = Callable[[str], FileList | None]
"""The files behind a digest, None when nobody knows them any more."""

_OPTIONS = {
    "network": "--network",
    "security": "--security",
    "extra_hosts": "--add-host",
    "platform": "platform",
    "hostname": "BUILDKIT_SANDBOX_HOSTNAME",
    "chmod": "--chmod",
    "chown": "--chown",
    "exclude_patterns": "--exclude",
    "attempt_unpack": "--unpack",
    "modes": "--cache-key-mode",
}
_SAID_ELSEWHERE = {"op", "by", "inputs", "argv", "env", "cwd", "user", "mounts", "actions", "secrets"}


class Told(NamedTuple):
    """A key as it can be compared: its manifest, and the note that goes with it."""

    manifest: Mapping[str, Any]
    notes: Mapping[str, Any]


class Difference(NamedTuple):
    """One thing that differs. `kind` is file, files, arg, env, workdir, user, instruction, script, shell, option,
    mount, secret, base, input, document or source; `subject` says which one."""

    kind: str
    subject: str = ""
    was: str | None = None
    now: str | None = None
    details: tuple[str, ...] = ()
    """Of a file: content, mode, owner, target, type, link, added, removed or renamed."""


def compare(former: Told, now: Told, list_of: ListOf) -> list[Difference]:
    """What differs, the causes first that a user would look at first. Empty when only inputs' own keys do not agree."""
    if former.manifest["op"] != now.manifest["op"]:
        return [_instruction(former, now)]
    found = list(dict.fromkeys(_inputs(former, now, list_of)))  # a copy from its own base has it twice
    if now.manifest["op"] == "exec":
        found += _without_secrets(_exec(former, now), former, now)
    elif now.manifest["op"] == "file":
        found += _actions(former, now)
    found += _secrets(former.manifest.get("secrets", {}), now.manifest.get("secrets", {}))
    for name in sorted({*former.manifest, *now.manifest} - _SAID_ELSEWHERE):
        was, is_now = former.manifest.get(name), now.manifest.get(name)
        if was != is_now:
            found.append(_option(name, was, is_now))
    return found


def _instruction(former: Told, now: Told) -> Difference:
    return Difference("instruction", "", str(former.notes["text"]), str(now.notes["text"]))


def _option(name: str, was: object, now: object) -> Difference:
    kind = "option" if name in _OPTIONS else "source"
    return Difference(kind, _OPTIONS.get(name, name), _text(was), _text(now))


def _text(value: object) -> str | None:
    if value in (None, "", [], ()):
        return None
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _exec(former: Told, now: Told) -> Iterator[Difference]:
    was, argv = list(former.manifest["argv"]), list(now.manifest["argv"])
    if was != argv:
        yield _command(was, argv, former, now)
    yield from _variables(former, now)
    for name, kind in (("cwd", "workdir"), ("user", "user")):
        if former.manifest[name] != now.manifest[name]:
            yield Difference(kind, "", former.manifest[name] or None, now.manifest[name] or None)
    if former.notes["text"] == now.notes["text"] or was == argv:
        yield from _mounts(former.manifest["mounts"], now.manifest["mounts"])


def _without_secrets(found: Iterator[Difference], former: Told, now: Told) -> Iterator[Difference]:
    """The differences with the values of secret variables hidden wherever else they have come to stand."""
    pairs = (entry.partition("=") for told in (former, now) for entry in told.manifest["env"])
    values = sorted({value for name, _, value in pairs if value and is_secret_name(name)}, key=len, reverse=True)
    for each in found:
        was, is_now = each.was, each.now
        for value in values:
            was, is_now = (text and text.replace(value, "***") for text in (was, is_now))
        yield each._replace(was=was, now=is_now)


def _command(was: list[str], argv: list[str], former: Told, now: Told) -> Difference:
    """Another instruction; or the same one with another shell, or with another heredoc."""
    if former.notes["text"] != now.notes["text"] or not was or not argv:
        return _instruction(former, now)
    if was[:-1] != argv[:-1]:
        return Difference("shell", "", " ".join(was[:-1]), " ".join(argv[:-1]))
    old, new = was[-1].split("\n"), argv[-1].split("\n")
    shorter = min(len(old), len(new))
    line = next((number for number in range(shorter) if old[number] != new[number]), shorter)
    return Difference("script", str(line + 1), "".join(old[line : line + 1]), "".join(new[line : line + 1]))


def _variables(former: Told, now: Told) -> Iterator[Difference]:
    was, env = (dict(entry.split("=", 1) for entry in told.manifest["env"]) for told in (former, now))
    arguments = {*former.notes.get("args", ()), *now.notes.get("args", ())}
    for name in [*env, *(name for name in was if name not in env)]:
        if was.get(name) != env.get(name):
            kind = "arg" if name in arguments else "env"
            values = (None, None) if is_secret_name(name) else (was.get(name), env.get(name))
            details = ("added",) if name not in was else ("removed",) if name not in env else ()
            yield Difference(kind, name, *values, details)
    if was == env and former.manifest["env"] != now.manifest["env"]:
        yield Difference("env", details=("order",))


def _mounts(was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[Difference]:
    for number in range(max(len(was), len(now))):
        old, new = (mounts[number] if number < len(mounts) else {} for mounts in (was, now))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name) and name != "input":
                subject = f"{(new or old)['kind']} {(new or old)['target'] or (new or old)['id']}: {name}"
                yield Difference("mount", subject, _text(old.get(name)), _text(new.get(name)))


def _actions(former: Told, now: Told) -> list[Difference]:
    was, actions = former.manifest["actions"], now.manifest["actions"]
    if [each["action"] for each in was] != [each["action"] for each in actions]:
        return [_instruction(former, now)]
    found: dict[Difference, None] = {}
    for old, new in zip(was, actions, strict=True):
        for name in new:
            if old.get(name) != new[name]:
                found[_action_field(new["action"], name, (old.get(name), new[name]), (former, now))] = None
    if any(each.kind == "instruction" for each in found):
        return [_instruction(former, now)]
    return list(found)


def _action_field(action: str, name: str, values: tuple[Any, Any], told: tuple[Told, Told]) -> Difference:
    if name in _OPTIONS:
        return _option(name, *values)
    if action == "MkdirAction":
        return Difference("workdir" if name == "path" else "user", "", _text(values[0]), _text(values[1]))
    if action == "MkfileAction" and name == "content":
        return Difference("document")
    return _instruction(*told)


def _secrets(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*was, *now}):
        if was.get(name) != now.get(name):
            yield Difference("secret", name)


def _inputs(former: Told, now: Told, list_of: ListOf) -> Iterator[Difference]:
    was, inputs = former.manifest["inputs"], now.manifest["inputs"]
    names = [told.notes.get("inputs", []) for told in (former, now)]
    for position, new in enumerate(inputs):
        old: Mapping[str, Any] = was[position] if position < len(was) else {"empty": True}
        if old == new:
            continue
        if "digests" in old and "digests" in new:
            if old.get("modes") != new.get("modes"):
                yield _option("modes", old.get("modes", "full"), new.get("modes", "full"))
            else:
                yield from _copied(position, (old["digests"], new["digests"]), now, list_of)
        else:
            yield _root(*(each[position] if position < len(each) else None for each in names))


def _root(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Difference:
    """Another input: a base image by its digest, else what it is the result of."""
    if was and now and "image" in was and "image" in now:
        if was["image"] == now["image"]:
            return Difference("base", now["image"], was["digest"], now["digest"])
        return Difference("base", "", was["image"], now["image"])
    return Difference("input", "", was["text"] if was else None, now["text"] if now else None)


def _copied(
    position: int, digests: tuple[Sequence[str], Sequence[str]], now: Told, list_of: ListOf
) -> Iterator[Difference]:
    """The files that differ in what copies read of one input. Copies that are not the same ones are not compared."""
    copies = [each for each in now.manifest["actions"] if each.get("input") == position and "source" in each]
    if len(digests[0]) != len(digests[1]):
        return
    for copy, was, is_now in zip(copies, *digests, strict=True):
        if was == is_now:
            continue
        old, new = list_of(was), list_of(is_now)
        if old is None or new is None:
            yield Difference("files", str(copy["source"]).lstrip("/"))
            continue
        yield from map(_file, file_changes(old, new, str(copy["source"])))


def _file(change: FileChange) -> Difference:
    return Difference("file", change.path, change.former_path or None, None, change.what)
