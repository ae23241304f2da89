"""The door to privileges: what is missing is named, with what would allow it."""

from __future__ import annotations

import errno
import os

import pytest

from builder.errors import SandboxError
from builder.sandbox import diagnosis, idmap, syscalls, userns
from builder.sandbox.idmap import Extent, IdMaps

FILTERED = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"
EPERM = PermissionError(errno.EPERM, "operation not permitted")


@pytest.mark.parametrize(
    ("files", "error", "hint"),
    [
        ({}, OSError(errno.ENOSPC, ""), "user.max_user_namespaces"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, EPERM, "kernel.unprivileged_userns_clone=1"),
        ({"/proc/self/status": FILTERED}, EPERM, "--security-opt seccomp=unconfined"),
        ({}, OSError(errno.EINVAL, ""), "no user namespaces"),
        ({}, EPERM, "run pybuild as root"),
        ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, None, "apparmor_restrict"),
        ({}, None, "security module"),
    ],
)
def test_why_there_is_no_namespace(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], error: OSError | None, hint: str
) -> None:
    monkeypatch.setattr(diagnosis, "_read", lambda path, *, strip=True: _text(files.get(path, ""), strip=strip))
    found = diagnosis.why_no_namespace(error)
    assert found.exit_code == 125
    assert found.hint is not None
    assert hint in found.hint


@pytest.mark.parametrize(
    ("files", "what", "error", "hint"),
    [
        ({"/proc/self/attr/current": "docker-default (enforce)\n"}, "/", EPERM, "--privileged"),
        ({"/proc/self/attr/current": "docker-default (enforce)\n"}, "/", 13, "apparmor=unconfined"),
        ({"/proc/self/attr/current": "system_u:system_r:container_t:s0\n"}, "/", 13, "label=disable"),
        ({"/proc/self/status": FILTERED}, "/proc", EPERM, "systempaths=unconfined"),
        ({"/proc/self/status": FILTERED}, "hostname", EPERM, "seccomp=unconfined"),
    ],
)
def test_why_something_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], what: str, error: OSError | int, hint: str
) -> None:
    monkeypatch.setattr(diagnosis, "_read", lambda path, *, strip=True: _text(files.get(path, ""), strip=strip))
    given = OSError(error, os.strerror(error)) if isinstance(error, int) else error
    found = diagnosis.why_forbidden(what, given)
    assert found.hint is not None
    assert hint in found.hint


def _text(content: str, *, strip: bool) -> str:
    return content.strip() if strip else content


def test_without_privileges_or_namespaces_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise EPERM

    monkeypatch.setattr(userns, "has_privileges", lambda: False)
    monkeypatch.setattr(userns.threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(syscalls, "unshare", refuse)
    with pytest.raises(SandboxError, match="needs root or a user namespace") as caught:
        userns.take_privileges()
    assert caught.value.exit_code == 125
    assert caught.value.hint is not None


def test_a_namespace_is_not_entered_with_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "has_privileges", lambda: False)
    monkeypatch.setattr(userns.threading, "active_count", lambda: 2)
    with pytest.raises(SandboxError, match="several threads"):
        userns.take_privileges()


def test_maps_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"/etc/subuid": [(100000, 10), (300000, 5)], "/etc/subgid": [(100000, 10)]}
    monkeypatch.setattr(idmap, "subordinate_ids", lambda path, _: given[path])
    maps = idmap.user_maps(1000, 1001)
    assert maps.uids == (Extent(0, 1000, 1), Extent(1, 100000, 10), Extent(11, 300000, 5))
    assert maps.gids == (Extent(0, 1001, 1), Extent(1, 100000, 10))
    given["/etc/subgid"] = []
    assert idmap.user_maps(1000, 1001) == IdMaps((Extent(0, 1000, 1),), (Extent(0, 1001, 1),))
    words = idmap.mapper_words("newuidmap", 7, maps.uids)
    assert words == ["newuidmap", "7", "0", "1000", "1", "1", "100000", "10", "11", "300000", "5"]
