from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandboxes import GROUP, PASSWD, PATH, Box, busybox_program

from builder.errors import BuildError, SandboxError
from builder.sandbox.passwd import User, home_of, parse_group, parse_passwd, resolve_user
from builder.sandbox.spec import RootMount

FORMS = [
    ("", User(0, 0, ())),
    ("root", User(0, 0, ())),
    ("app", User(1000, 1000, (50, 63))),
    ("app:bin", User(1000, 1, ())),
    ("app:", User(1000, 1000, (50, 63))),
    ("1000", User(1000, 1000, (50, 63))),
    ("33:50", User(33, 50, ())),
    ("7777", User(7777, 0, ())),
    ("7777:8888", User(7777, 8888, ())),
    ("7777:audio", User(7777, 63, ())),
    (":50", User(0, 50, ())),
    ("+1000:50:9", User(1000, 50, ())),
    ("root:staff", User(0, 50, ())),
]


def bare_root(box: Box, tmp_path: Path) -> RootMount:
    """busybox and nothing else."""
    place = tmp_path / "bare" / "bin"
    place.mkdir(parents=True)
    shutil.copy(busybox_program(tmp_path), place / "sh")
    return box.root()._replace(lower_dirs=(str(place.parent),))


@pytest.mark.parametrize(("spec", "user"), FORMS)
def test_a_user_is_looked_up_as_by_buildkit(spec: str, user: User) -> None:
    assert resolve_user(spec, PASSWD.encode(), GROUP.encode()) == user


@pytest.mark.parametrize(("spec", "user"), FORMS)
def test_the_process_has_these_ids_and_its_group_among_the_others(box: Box, spec: str, user: User) -> None:
    script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status"
    uid, gid, groups = (line.split()[1:] for line in box.run(script, user=spec).lines)
    assert set(uid) == {str(user.uid)}
    assert set(gid) == {str(user.gid)}
    assert {int(group) for group in groups} == {user.gid, *user.groups}


@pytest.mark.parametrize(("spec", "home"), [("", "/root"), ("app", "/home/app"), ("4242", "/"), ("1", "/bin")])
def test_home_comes_from_passwd(box: Box, spec: str, home: str) -> None:
    assert box.run("echo $HOME", user=spec).out == home + "\n"


def test_home_of_the_environment_wins_unless_it_is_empty(box: Box) -> None:
    assert box.run("echo $HOME", user="app", env=(PATH, "HOME=/custom")).out == "/custom\n"
    assert box.run("echo $HOME", user="app", env=(PATH, "HOME=")).out == "/home/app\n"
    assert box.run("echo ${HOME-none}", user="app", add_home=False).out == "none\n"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("app:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("app:-1", "uids and gids must be in range 0-2147483647"),
        ("0:4294967295", 'user or group id in "0:4294967295"'),
        ("1" * 5000, "user or group id"),
    ],
)
def test_an_unknown_user_is_the_users_error(box: Box, spec: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        box.run("true", user=spec)
    assert not isinstance(caught.value, SandboxError)


def test_without_passwd_numbers_work_and_names_do_not(box: Box, tmp_path: Path) -> None:
    root = bare_root(box, tmp_path)
    assert box.run("echo $HOME $PWD", root=root, user="12:34").out == "/ /\n"
    with pytest.raises(BuildError, match="unable to find user root: the image has no /etc/passwd"):
        box.run("true", root=box.root()._replace(lower_dirs=root.lower_dirs), user="root")


def test_root_is_a_number_where_both_halves_are(box: Box, tmp_path: Path) -> None:
    script = "grep -E '^(Uid|Gid)' /proc/self/status | cut -f2"
    assert box.run("cat /proc/self/status", root=bare_root(box, tmp_path), user="root:root").out
    assert resolve_user("root:5", None, None) == User(0, 5, ())
    assert box.run(script, user="root:5").lines == ["0", "5"]


def test_root_is_in_its_groups_without_user_too() -> None:
    group = b"#wheel:x:9:root\nwheel:x:10:app,root\n"
    assert resolve_user("", b"root:x:0:7::/root:/bin/sh\n", group) == User(0, 7, (10,))
    assert resolve_user("", None, None) == User(0, 0, ())


def test_missing_system_directories_stay_in_the_layer(box: Box, tmp_path: Path) -> None:
    result = box.run("true", root=bare_root(box, tmp_path))
    assert result.upper() == ["/dev", "/proc", "/sys"]
    assert {os.stat(result.upper_dir + path).st_mode for path in result.upper()} == {0o40755}


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "huge", "proc link"])
def test_a_passwd_that_is_no_plain_file_is_refused_at_once(box: Box, kind: str) -> None:
    layer = box.lower()
    (layer / "etc").mkdir()
    path = layer / "etc" / "passwd"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "directory":
        path.mkdir()
    elif kind == "huge":
        path.write_bytes(b"x" * (10 << 20) + b"\n")
    else:
        path.symlink_to("/proc/self/fd/0")
    with pytest.raises(BuildError, match="/etc/passwd of the image"):
        box.run("true", root=box.root(layer), user="app")


def test_a_passwd_link_is_followed_inside_the_image(box: Box) -> None:
    layer = box.lower()
    (layer / "etc").mkdir()
    (layer / "etc" / "passwd").symlink_to("/../../etc/users")
    (layer / "etc" / "users").write_text("inside:x:77:78::/in:/bin/sh\n")
    assert box.run("id -u; id -g; echo $HOME", root=box.root(layer), user="inside").lines == ["77", "78", "/in"]


def test_non_root_can_reopen_its_own_output(box: Box) -> None:
    result = box.run("echo out > /dev/stdout; echo err > /dev/stderr", user="app")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_odd_lines_are_read_leniently() -> None:
    passwd = parse_passwd(b"\n  \nshort\nname:x:text:9999999999999999999999:g:/h\n a:x:1:2:::\n\xff:x:3:4::/\xff:\n")
    assert [(entry.name, entry.uid, entry.gid, entry.home) for entry in passwd] == [
        ("short", 0, 0, ""),
        ("name", 0, 0, "/h"),
        ("a", 1, 2, ""),
        ("\udcff", 3, 4, "/\udcff"),
    ]
    assert [entry.members for entry in parse_group(b"g:x:1:a,b\nh:x:2:\ni\n")] == [("a", "b"), (), ()]
    assert home_of(1, b"a:x:1:2:::") == "/"


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_any_text_gives_a_user_or_a_build_error(spec: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve_user(spec, passwd, group)
    except BuildError:
        return
    assert 0 <= user.uid < 1 << 32
    assert 0 <= user.gid < 1 << 32
