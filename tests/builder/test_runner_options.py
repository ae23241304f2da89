"""The texts of run's options, as Docker reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.runner.options import (
    Volume,
    check_targets,
    parse_bytes,
    parse_host,
    parse_tmpfs,
    parse_ulimit,
    parse_variables,
    parse_volume,
)


def test_variables_come_from_files_then_from_options(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=1\r\n# note\n\n  B=x y \nHERE\nNOT_HERE\nEMPTY=\n")
    variables = parse_variables(["A=2", "HERE", "GONE", "C=a=b"], [str(file)], {"HERE": "h"})
    assert variables == (
        ("A", "1"),
        ("B", "x y "),
        ("HERE", "h"),
        ("EMPTY", ""),
        ("A", "2"),
        ("HERE", "h"),
        ("GONE", None),
        ("C", "a=b"),
    )


@pytest.mark.parametrize("line", ["=x", "A B=x", "A =x"])
def test_an_env_file_with_a_malformed_name_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text(f"OK=1\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        parse_variables([], [str(tmp_path / "env")], {})


def test_a_missing_env_file_and_a_nameless_variable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        parse_variables([], [str(tmp_path / "none")], {})
    with pytest.raises(UsageError, match="has no name"):
        parse_variables(["=x"], [], {})


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/a:/b", Volume("bind", "/b", "/a")),
        ("/a:/b:ro", Volume("bind", "/b", "/a", True)),
        ("/a:/b:rw,z", Volume("bind", "/b", "/a")),
        ("./a/../c:/b//d/", Volume("bind", "/b/d", "/here/c")),
        (".:/b", Volume("bind", "/b", "/here")),
        ("/b", Volume("anonymous", "/b")),
    ],
)
def test_volumes(text: str, volume: Volume) -> None:
    assert parse_volume(text, "/here") == volume


@pytest.mark.parametrize("text", ["", ":/b", "/a:b", "/a:/", "/a:/b:rx", "/a:/b:ro:x", "name:/b", "b", "/a:"])
def test_malformed_volumes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_volume(text, "/here")


def test_a_relative_directory_without_a_dot_gets_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        parse_volume("src:/b", "/here")
    assert "./src:/b" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/t", Volume("tmpfs", "/t", settings={"noexec": True})),
        (
            "/t:size=1m,mode=1777,exec",
            Volume("tmpfs", "/t", settings={"noexec": False, "size": 1 << 20, "mode": 0o1777}),
        ),
        ("/t:ro,noexec,nosuid,uid=5", Volume("tmpfs", "/t", "", True, {"noexec": True, "uid": 5})),
    ],
)
def test_tmpfs(text: str, volume: Volume) -> None:
    assert parse_tmpfs(text) == volume


@pytest.mark.parametrize("text", ["t", "/", "/t:size=x", "/t:mode=9", "/t:mode=", "/t:huge=1", "/t:uid=-1"])
def test_malformed_tmpfs_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tmpfs(text)


def test_one_target_cannot_be_mounted_twice() -> None:
    check_targets([Volume("bind", "/a", "/x"), Volume("tmpfs", "/b")])
    with pytest.raises(UsageError, match='duplicate mount point: "/a"'):
        check_targets([Volume("bind", "/a", "/x"), Volume("tmpfs", "/a")])


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=10", ("nofile", 10, 10)),
        ("nofile=10:20", ("nofile", 10, 20)),
        ("core=-1", ("core", -1, -1)),
        ("cpu=1:-1", ("cpu", 1, -1)),
    ],
)
def test_ulimits(text: str, limit: tuple[str, int, int]) -> None:
    assert parse_ulimit(text) == limit


@pytest.mark.parametrize("text", ["nofile", "nofile=", "=1", "nofile=a", "nofile=20:10", "nofile=-1:10", "nofile=1:"])
def test_malformed_ulimits_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ulimit(text)


@pytest.mark.parametrize(
    ("text", "host"), [("a:1.2.3.4", "a:1.2.3.4"), ("a=1.2.3.4", "a:1.2.3.4"), ("a:::1", "a:::1"), ("a=[::1]", "a:::1")]
)
def test_hosts(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["a", "a:", ":1.2.3.4", "a:b", "a:1.2.3"])
def test_malformed_hosts_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_host(text)


def test_sizes() -> None:
    assert parse_bytes("64m", "shm-size") == 64 << 20
    for text in ("0", "x", "-1"):
        with pytest.raises(UsageError, match="shm-size"):
            parse_bytes(text, "shm-size")
