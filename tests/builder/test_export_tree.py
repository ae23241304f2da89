from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.export.local import write_tree
from builder.export.walk import walk_merged


def make(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    root.mkdir(exist_ok=True)
    return root


def whiteout(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o600, 0)


def merged(*top_first: Path) -> list[str]:
    return [entry.path for entry in walk_merged([str(path) for path in top_first])]


def test_upper_hides_lower_and_directories_merge(tmp_path: Path) -> None:
    lower = make(tmp_path / "1", {"a/x": "old", "a/y": "low", "f": "file", "gone": "", "d/in": "", "deep/gone/x": ""})
    upper = make(tmp_path / "2", {"a/x": "new", "f/now": "dir", "d": "file"})
    whiteout(upper / "gone")
    whiteout(upper / "deep" / "gone")
    entries = {entry.path: entry for entry in walk_merged([str(upper), str(lower)])}
    assert list(entries) == ["/a", "/a/x", "/a/y", "/d", "/deep", "/f", "/f/now"]
    assert Path(entries["/a/x"].source).read_text() == "new"
    assert [entries[path].layer for path in ("/a", "/a/x", "/a/y")] == [0, 0, 1]


def test_an_opaque_directory_hides_everything_below_it(tmp_path: Path) -> None:
    lower, middle, upper = (make(tmp_path / str(n), {f"a/{n}": ""}) for n in (1, 2, 3))
    os.setxattr(middle / "a", "trusted.overlay.opaque", b"y")
    assert merged(upper, middle, lower) == ["/a", "/a/2", "/a/3"]


def test_a_file_between_two_directories_stops_the_merge(tmp_path: Path) -> None:
    lower, upper = make(tmp_path / "1", {"a/low": ""}), make(tmp_path / "3", {"a/up": ""})
    for name in ("file", "whiteout"):
        middle = tmp_path / name
        middle.mkdir()
        whiteout(middle / "a") if name == "whiteout" else (middle / "a").write_text("")
        assert merged(upper, middle, lower) == ["/a", "/a/up"]


def test_children_follow_their_directory_and_siblings_are_in_byte_order(tmp_path: Path) -> None:
    root = make(tmp_path / "1", {"a/x": "", "a.b": "", "B": "", "é": ""})
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).write_text("")
    assert merged(root) == ["/B", "/a", "/a/x", "/a.b", "/é", "/\udcff"]


def test_the_walk_sees_what_the_kernel_shows(tmp_path: Path) -> None:
    layers: list[Path] = []
    for number in range(3):
        upper, work, seen = (tmp_path / f"{kind}{number}" for kind in ("upper", "work", "seen"))
        for directory in (upper, work, seen):
            directory.mkdir()
        lower = ":".join(map(str, reversed(layers))) or str(make(tmp_path / "empty", {}))
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(seen)], check=True)
        try:
            script = [
                "mkdir -p a/b c/d && echo 1 > a/b/f && echo 1 > c/d/g && ln -s /etc l && echo x > one",
                "rm -r a && mkdir a && echo 2 > a/new && rm one && mkdir one && echo 2 > one/two && rm -r c/d",
                "rm -r one && echo 3 > one && mkdir -p c/d && echo 3 >> a/new && rm l && mkfifo l",
            ][number]
            subprocess.run(["sh", "-c", script], cwd=seen, check=True)
            shown = sorted(str(path.relative_to(seen)) for path in seen.rglob("*"))
        finally:
            subprocess.run(["umount", str(seen)], check=True)
        layers.append(upper)
        assert sorted(path[1:] for path in merged(*reversed(layers))) == shown


def test_a_tree_is_written_with_all_that_it_has(tmp_path: Path) -> None:
    root = make(tmp_path / "root", {"d/file": "content", "d/suid": "x"})
    os.link(root / "d" / "file", root / "linked")
    os.symlink("/nowhere", root / "link")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(root / "d" / "file", "user.kept", b"1")
    os.setxattr(root / "d", "trusted.overlay.origin", b"x")
    for number, path in enumerate(["d/file", "d/suid", "link", "fifo", "null", "d"], 1):
        os.lchown(root / path, 1000 + number, 2000 + number)
        os.utime(root / path, (number * 1000, number * 1000), follow_symlinks=False)
    (root / "d" / "suid").chmod(0o4755)
    (root / "d").chmod(0o2711)
    os.utime(root / "d", (5, 6))

    out = tmp_path / "deep" / "out"
    write_tree(walk_merged([str(root)]), str(out))

    for path in ("d", "d/file", "d/suid", "linked", "link", "fifo", "null"):
        was, became = os.lstat(root / path), os.lstat(out / path)
        fields = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_rdev", "st_nlink")
        assert [getattr(was, field) for field in fields] == [getattr(became, field) for field in fields], path
    assert (out / "d" / "file").read_text() == "content"
    assert (out / "linked").samefile(out / "d" / "file")
    assert os.readlink(out / "link") == "/nowhere"
    assert os.getxattr(out / "linked", "user.kept") == b"1"
    assert os.listxattr(out / "d") == []


def test_links_that_lie_in_the_way_are_replaced_not_followed(tmp_path: Path) -> None:
    victim = make(tmp_path / "victim", {"file": "safe", "dir/file": "safe"})
    out = tmp_path / "out"
    out.mkdir()
    os.symlink(victim / "file", out / "file")
    os.symlink(victim / "dir", out / "dir")
    make(out, {"was-dir/x": "", "stays": "1"})
    root = make(tmp_path / "root", {"file": "new", "dir/file": "new", "was-dir": "file now"})
    write_tree(walk_merged([str(root)]), str(out))
    assert (victim / "file").read_text() == (victim / "dir" / "file").read_text() == "safe"
    assert (out / "dir" / "file").read_text() == (out / "file").read_text() == "new"
    assert (out / "was-dir").read_text() == "file now"
    assert (out / "stays").read_text() == "1"


def test_a_hostile_tree_stays_inside(tmp_path: Path) -> None:
    lower, upper = make(tmp_path / "1", {"esc/file": "evil"}), make(tmp_path / "2", {})
    outside = make(tmp_path / "outside", {})
    os.symlink(outside, upper / "esc")
    out = tmp_path / "out"
    write_tree(walk_merged([str(lower)]), str(out))
    write_tree(walk_merged([str(upper)]), str(out))
    write_tree(walk_merged([str(lower)]), str(out))
    assert list(outside.iterdir()) == []
    assert (out / "esc" / "file").read_text() == "evil"


def test_a_dest_that_is_no_directory_is_a_build_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="not a directory"):
        write_tree([], str(tmp_path / "file"))
    with pytest.raises(BuildError, match="not a directory"):
        write_tree([], str(tmp_path / "file" / "below"))
