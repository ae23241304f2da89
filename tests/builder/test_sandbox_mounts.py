from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from sandboxes import Box, bind

from builder.errors import BuildError, SandboxError
from builder.sandbox import overlay, syscalls
from builder.sandbox.spec import Mount
from builder.sandbox.stubs import remove_stubs
from builder.sandbox.wire import Stub


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to mount: a file, a directory, and links that would lead out of it."""
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "file").write_text("from the host\n")
    (source / "dir" / "inner").write_text("inner\n")
    (source / "out").symlink_to("/etc")
    (source / "up").symlink_to("../../../../../etc")
    return source


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A host directory that nothing may touch."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "b").touch()
    (canary / "d").mkdir()
    return canary


def test_a_bind_mount_is_the_host_directory(box: Box, source: Path) -> None:
    result = box.run("cat /mnt/here/file; echo new > /mnt/here/made", mounts=(bind(source, "/mnt/here"),))
    assert result.out == "from the host\n"
    assert (source / "made").read_text() == "new\n"


def test_a_read_only_bind_mount_cannot_be_written(box: Box, source: Path) -> None:
    result = box.run("cat /m/file; touch /m/x; mount -o remount,rw /m", mounts=(bind(source, "/m", read_only=True),))
    assert result.out == "from the host\n"
    assert "Read-only file system" in result.err
    assert result.code != 0


def test_files_and_sockets_can_be_mounted(box: Box, source: Path) -> None:
    result = box.run("cat /new/file; echo more >> /new/file", mounts=(bind(source / "file", "/new/file"),))
    assert result.out == "from the host\n"
    assert (source / "file").read_text() == "from the host\nmore\n"
    assert "/new" not in result.upper()


@pytest.mark.parametrize(("subpath", "found"), [("dir", "inner"), ("/dir/../dir", "inner")])
def test_a_part_of_a_source(box: Box, source: Path, subpath: str, found: str) -> None:
    assert box.run("ls /m", mounts=(bind(source, "/m", subpath=subpath),)).lines == [found]


@pytest.mark.parametrize("subpath", ["out", "up", "up/passwd", "../..", "/out/passwd"])
def test_a_part_of_a_source_is_never_outside_of_it(box: Box, source: Path, subpath: str) -> None:
    (source / "etc").mkdir()
    (source / "etc" / "inside").touch()
    if subpath.endswith("passwd"):
        with pytest.raises(BuildError, match=r"mount source .* no such file"):
            box.run("true", mounts=(bind(source, "/m", subpath=subpath),))
    else:
        listed = box.run("ls /m", mounts=(bind(source, "/m", subpath=subpath),)).lines
        assert listed in (["inside"], sorted(os.listdir(source)))


def test_a_source_that_is_swapped_all_the_time_never_shows_the_host(box: Box, source: Path, canary: Path) -> None:
    (source / "there").mkdir()
    (source / "link").symlink_to(canary)
    stop = threading.Event()

    def swap() -> None:
        flags = 2  # RENAME_EXCHANGE
        import ctypes

        libc = ctypes.CDLL(None)
        names = [os.fsencode(source / name) for name in ("there", "link")]
        while not stop.is_set():
            libc.renameat2(-100, names[0], -100, names[1], flags)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(30):
            try:
                assert box.run("ls /m", mounts=(bind(source, "/m", subpath="there"),)).lines == []
            except BuildError as error:
                assert "no such file" in str(error)
    finally:
        stop.set()
        swapper.join()


def test_a_descriptor_can_be_a_source(box: Box, source: Path) -> None:
    fd = os.open(source / "dir", os.O_PATH)
    detached = overlay.mount_detached([str(source), box.lower_dir])
    try:
        mounts = (Mount("bind", "/one", fd, read_only=True), Mount("bind", "/two", detached, read_only=True))
        assert box.run("ls /one /two/file; touch /one/x", mounts=mounts).lines == ["/two/file", "", "/one:", "inner"]
    finally:
        os.close(fd)
        os.close(detached)


def test_tmpfs_has_the_mode_of_what_it_covers(box: Box) -> None:
    mounts = (
        Mount("tmpfs", "/tmp"),
        Mount("tmpfs", "/t"),
        Mount("tmpfs", "/u", options={"mode": 0o700, "uid": 5, "size": 8 << 20}),
    )
    result = box.run(
        "stat -c '%a %u' /tmp /t /u; df -k /u | tail -1 | awk '{print $2}'; echo x > /tmp/f", mounts=mounts
    )
    assert result.lines == ["1777 0", "1777 0", "700 5", "8192"]
    assert result.upper() == ["/etc"]


def test_tmpfs_is_for_everybody_where_nothing_was(box: Box) -> None:
    assert box.run("stat -c %a /new/t", mounts=(Mount("tmpfs", "/new/t"),)).out == "1777\n"


@pytest.mark.parametrize("covers", [True, False])
def test_a_mount_on_etc_hides_the_own_files_of_a_build(box: Box, source: Path, covers: bool) -> None:
    shown = box.run("ls /etc", mounts=(bind(source / "dir", "/etc"),), mounts_cover_etc=covers).lines
    assert shown == (["inner"] if covers else ["hosts", "inner", "resolv.conf"])


@pytest.mark.parametrize(("mode", "code"), [(0o644, 126), (0o744, 0)])
def test_a_file_from_memory_is_only_executed_if_it_may(box: Box, mode: int, code: int) -> None:
    script = Mount("file", "/s", read_only=True, options={"content": "#!/bin/sh\n", "mode": mode})
    assert box.run("/s", mounts=(script,)).code == code


def test_a_file_from_memory(box: Box) -> None:
    options = {"content": "secret \udcff\n", "mode": 0o400, "uid": 1000}
    mounts = (
        Mount("file", "/run/secrets/key", read_only=True, options=options),
        Mount("file", "/dev/pipes/EOF", options={"content": "#!/bin/sh\necho ran\n", "mode": 0o755}),
    )
    result = box.run(
        "cat /run/secrets/key; stat -c '%a %u %s' /run/secrets/key; /dev/pipes/EOF", mounts=mounts, user="app"
    )
    assert result.lines == ["secret \udcff", "400 1000 9", "ran"]
    assert result.upper() == ["/etc"]


def test_an_overlay_mount_throws_away_what_is_written(box: Box, source: Path) -> None:
    options = {"lower_dirs": (str(source), box.lower_dir)}
    result = box.run(
        "rm /m/file; echo x > /m/dir/new; ls /m/dir; ls /m/bin/sh", mounts=(Mount("overlay", "/m", options=options),)
    )
    assert result.lines == ["inner", "new", "/m/bin/sh"]
    assert (source / "file").exists()
    assert not (source / "dir" / "new").exists()
    part = Mount("overlay", "/m", options={**options, "subpath": "dir"})
    assert box.run("echo x > /m/new; ls /m", mounts=(part,)).lines == ["inner", "new"]
    single = Mount("overlay", "/m", options={"lower_dirs": (str(source),)})
    assert box.run("echo x >> /m/file; cat /m/file", mounts=(single,)).lines == ["from the host", "x"]
    assert (source / "file").read_text() == "from the host\n"


def test_a_read_only_overlay_mount(box: Box, source: Path) -> None:
    for lower_dirs in [(str(source),), (str(source), box.lower_dir)]:
        for subpath in ("", "dir"):
            options = {"lower_dirs": lower_dirs, "subpath": subpath}
            result = box.run("touch /m/x; find /m -name inner", mounts=(Mount("overlay", "/m", None, True, options),))
            assert result.out.endswith("inner\n")
            assert "Read-only file system" in result.err


def test_an_overlay_mount_with_a_directory_for_what_is_written(box: Box, source: Path, tmp_path: Path) -> None:
    for name in ("keep", "keep-work"):
        (tmp_path / name).mkdir()
    options = {
        "lower_dirs": (str(source),),
        "upper_dir": str(tmp_path / "keep"),
        "work_dir": str(tmp_path / "keep-work"),
    }
    box.run("echo x > /m/new", mounts=(Mount("overlay", "/m", options=options),))
    assert (tmp_path / "keep" / "new").read_text() == "x\n"


def test_mounts_inside_mounts_whatever_their_order(box: Box, source: Path) -> None:
    mounts = (Mount("tmpfs", "/m/dir/deep"), bind(source, "/m"), bind(source / "file", "/m/dir/deep/f"))
    assert box.run("cat /m/dir/deep/f", mounts=mounts).out == "from the host\n"


def test_an_own_hosts_file_takes_the_place_of_the_usual_one(box: Box, source: Path) -> None:
    assert box.run("cat /etc/hosts", mounts=(bind(source / "file", "/etc/hosts"),)).out == "from the host\n"


def test_mount_points_are_gone_after_the_step(box: Box, source: Path) -> None:
    mounts = (bind(source, "/very/deep/new"), Mount("tmpfs", "/home/t"), bind(source / "file", "/home/app/.config/f"))
    result = box.run("touch /home/kept", mounts=mounts)
    assert result.upper() == ["/etc", "/home", "/home/app", "/home/kept"]


@pytest.mark.parametrize("fields", [{"user": "nobody-here"}, {"cwd": "/etc/passwd"}])
def test_mount_points_are_gone_after_a_failure_too(box: Box, source: Path, fields: dict[str, str]) -> None:
    root = box.root()
    with pytest.raises(BuildError):
        box.run("true", root=root, mounts=(bind(source, "/very/deep"),), **fields)
    assert root.upper_dir is not None
    assert os.listdir(root.upper_dir) == ["etc"]
    with pytest.raises(BuildError):
        box.run("/no/program", "", root=root, mounts=(bind(source, "/very/deep"),))
    assert os.listdir(root.upper_dir) == ["etc"]


def test_what_the_step_put_beside_a_mount_point_stays(box: Box, source: Path) -> None:
    result = box.run("touch /new/beside", mounts=(bind(source, "/new/point"),))
    assert result.upper() == ["/etc", "/new", "/new/beside"]


def test_the_times_of_the_directories_above_are_kept(box: Box, source: Path) -> None:
    layer = box.lower()
    (layer / "etc").mkdir()
    (layer / "etc" / "passwd").touch()
    os.utime(layer / "etc", ns=(10**18, 10**18))
    result = box.run("stat -c %Y /etc", root=box.root(layer), mounts=(bind(source, "/etc/x/y"),))
    assert result.out == f"{10**9}\n"
    assert os.stat(result.upper_dir + "/etc").st_mtime_ns == 10**18


def test_a_mount_point_through_a_link_lies_inside_the_root(box: Box, source: Path, canary: Path) -> None:
    layer = box.lower()
    (layer / "link").symlink_to(canary)
    (layer / "up").symlink_to("../../../../../real")
    (layer / "real").mkdir()
    (layer / "dangling").symlink_to("nowhere/at/all")
    mounts = (bind(source, "/link/d"), bind(source, "/up/m"), bind(source, "/dangling/m"))
    result = box.run(f"ls {canary}/d/file /real/m/file /nowhere/at/all/m/file", root=box.root(layer), mounts=mounts)
    assert result.code == 0
    assert set(result.upper()) == {"/etc", "/real", "/tmp"}
    assert os.listdir(canary / "d") == []


def test_a_step_cannot_have_the_clean_up_remove_host_files(box: Box, canary: Path) -> None:
    attack = f"mv /a /moved; ln -s {canary} /a; mv /x/y /x/z; ln -s {canary} /x/y"
    mounts = (Mount("tmpfs", "/a/d"), Mount("file", "/a/b"), Mount("tmpfs", "/x/y/d"))
    result = box.run(attack, mounts=mounts)
    assert result.code == 0
    assert sorted(os.listdir(canary)) == ["b", "d"]
    assert os.readlink(result.upper_dir + "/a") == str(canary)


def test_a_clean_up_only_removes_what_was_made(tmp_path: Path) -> None:
    for name in ("same", "other", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "written").write_text("text")
    stubs = [
        Stub("/same", os.stat(tmp_path / "same").st_ino),
        Stub("/other", os.stat(tmp_path / "same").st_ino),
        Stub("/full", os.stat(tmp_path / "full").st_ino),
        Stub("/written", os.stat(tmp_path / "written").st_ino),
        Stub("/gone/deep", 1),
    ]
    remove_stubs(str(tmp_path), stubs)
    assert sorted(os.listdir(tmp_path)) == ["full", "other", "written"]


@pytest.mark.parametrize("directory", ["proc", "dev", "sys"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_system_directory_that_is_none_is_refused(box: Box, canary: Path, directory: str, kind: str) -> None:
    layer = box.lower()
    if kind == "link":
        (layer / directory).symlink_to(canary)
    else:
        (layer / directory).touch()
    with pytest.raises(BuildError, match=f"/{directory} of the image is not a directory") as caught:
        box.run("true", root=box.root(layer))
    assert not isinstance(caught.value, SandboxError)
    assert sorted(os.listdir(canary)) == ["b", "d"]


def test_devices_of_the_image_are_covered(box: Box, canary: Path) -> None:
    layer = box.lower()
    (layer / "dev").mkdir()
    (layer / "dev" / "null").symlink_to(canary / "b")
    (layer / "dev" / "pts").symlink_to(canary)
    assert box.run("echo x > /dev/null; stat -c %F /dev/null", root=box.root(layer)).out == "character special file\n"
    assert (canary / "b").read_text() == ""


@pytest.mark.parametrize("target", ["/proc", "/proc/acpi", "/proc/self/attr", "/way/sys", "/proc/new", "/"])
def test_no_mount_in_proc_or_on_the_root(box: Box, source: Path, target: str) -> None:
    layer = box.lower()
    (layer / "way").symlink_to("/proc")
    for mount in (bind(source, target), Mount("tmpfs", target)):
        with pytest.raises(BuildError, match=r"in /proc|is the root"):
            box.run("true", root=box.root(layer), mounts=(mount,))


def test_a_missing_source_names_it(box: Box) -> None:
    with pytest.raises(SandboxError, match="mount bind on /m: no such file or directory: /no/such/source"):
        box.run("true", mounts=(bind("/no/such/source", "/m"),))
    with pytest.raises(BuildError, match='unknown mount kind "magic"'):
        box.run("true", mounts=(Mount("magic", "/m"),))
    with pytest.raises(BuildError, match='unknown network mode "magic"'):
        box.run("true", network="magic")


def test_a_read_only_root(box: Box, source: Path) -> None:
    for fields, root in (({"read_only_root": True}, box.root()), ({}, box.root(read_only=True))):
        result = box.run("touch /x; cat /m/n/file", root=root, mounts=(bind(source, "/m/n"),), **fields)
        assert "Read-only file system" in result.err
        assert result.out == "from the host\n"


def test_a_root_of_one_plain_directory(box: Box, tmp_path: Path) -> None:
    os.link(box.lower_dir + "/bin/busybox", tmp_path / "busybox")
    root = box.root()
    assert root.upper_dir is not None
    os.mkdir(root.upper_dir + "/bin")
    os.link(tmp_path / "busybox", root.upper_dir + "/bin/sh")
    result = box.run("echo x > /made", root=root._replace(lower_dirs=()))
    assert result.code == 0
    assert result.upper() == ["/bin", "/bin/sh", "/dev", "/made", "/proc", "/sys"]


def test_hundreds_of_layers(box: Box, tmp_path: Path) -> None:
    layers = []
    for number in range(400):
        layer = tmp_path / f"layer-{number}"
        layer.mkdir()
        (layer / f"f{number}").touch()
        (layer / "top").write_text(f"{number}\n")
        layers.append(layer)
    result = box.run("ls / | grep -c '^f[0-9]'; cat /top", root=box.root(*layers))
    assert result.lines == ["400", "0"]


def test_paths_with_special_characters(box: Box, tmp_path: Path) -> None:
    strange = tmp_path / "a:b,c\\d" / ("x" * 200)
    strange.mkdir(parents=True)
    (strange / "file").write_text("found\n")
    for name in ("upper:", "work\\"):
        (strange.parent / name).mkdir()
    root = box.root(strange)._replace(upper_dir=str(strange.parent / "upper:"), work_dir=str(strange.parent / "work\\"))
    assert box.run("cat /file; echo x > /made", root=root).out == "found\n"
    assert (strange.parent / "upper:" / "made").read_text() == "x\n"


def test_a_volatile_root_is_an_overlay_without_syncs(box: Box) -> None:
    options = "grep ' / ' /proc/mounts | grep -o 'volatile[, ]'"
    assert box.run(options, root=box.root(volatile=True)).code == 0
    assert box.run(options).code == 1


def test_a_kernel_without_single_lower_directories(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fs_fd: int, key: str, value: str) -> None:
        raise OSError(22, "invalid argument", key)

    monkeypatch.setattr(syscalls, "fsconfig_set_string", refuse)
    before = Path("/proc/self/mountinfo").read_text()
    layers = []
    for number in range(150):
        layers.append(tmp_path / f"layer:{number}")
        (layers[-1] / f"d{number}").mkdir(parents=True)
    names = [str(layer) for layer in layers]
    merged = overlay.mount_detached(names)
    assert len(os.listdir(os.open(".", os.O_RDONLY, dir_fd=merged))) == 150
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=merged)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    writable = overlay.mount_detached(names, str(tmp_path / "upper"), str(tmp_path / "work"), volatile=True)
    os.rmdir("d7", dir_fd=writable)
    assert stat.S_ISCHR(os.stat(tmp_path / "upper" / "d7").st_mode)
    assert Path("/proc/self/mountinfo").read_text() == before
    with pytest.raises(SandboxError, match="no such file"):
        overlay.mount_detached(["/no/such", names[0]])
    for fd in (merged, writable):
        os.close(fd)


def test_views_of_layers_for_the_builder_itself(box: Box, source: Path, tmp_path: Path) -> None:
    empty = overlay.mount_detached([])
    assert os.listdir(os.open(".", os.O_RDONLY, dir_fd=empty)) == []
    merged = overlay.mount_detached([str(source), box.lower_dir])
    names = os.listdir(os.open(".", os.O_RDONLY, dir_fd=merged))
    assert {"file", "bin"} <= set(names)
    flags = os.fstatvfs(merged).f_flag
    assert flags & os.ST_RDONLY
    assert flags & os.ST_NODEV
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=merged)
    with pytest.raises(SandboxError, match=r"overlay of 2 lower directories: .*no such file"):
        overlay.mount_detached(["/no/such", str(source)])
    for fd in (empty, merged):
        os.close(fd)


def test_openat2_stays_in_the_root(source: Path) -> None:
    root = os.open(source, os.O_PATH)
    inside = syscalls.RESOLVE_IN_ROOT
    with pytest.raises(FileNotFoundError, match="openat2"):
        syscalls.openat2(root, "up/passwd", os.O_RDONLY, resolve=inside)
    with pytest.raises(OSError, match="too many levels"):
        syscalls.openat2(root, "up", os.O_RDONLY, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    fd = syscalls.openat2(root, "made", os.O_CREAT | os.O_WRONLY, 0o640, inside)
    assert stat.S_IMODE(os.fstat(fd).st_mode) & 0o600 == 0o600
    assert not os.get_inheritable(fd)
    for opened in (fd, root):
        os.close(opened)
