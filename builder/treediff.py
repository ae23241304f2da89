"""What differs between the directories of two layers: files by path, and what of each."""

from __future__ import annotations

from builder.explain.files import FileChange
from cache.contenthash import file_digest
from cache.dirscan import FileEntry, scan
from cache.statcache import FileDigests


def tree_differences(was_dir: str, now_dir: str) -> tuple[list[FileChange], bool]:
    """The entries that differ in more than their times, by path; and whether times are all that differs.

    Extended attributes are not looked at. Raises CacheError for what cannot be read.
    """
    old, new = scan(was_dir).entries(), scan(now_dir).entries()
    found, has_other_times = [], False
    for path in sorted({*old, *new}):
        was, now = old.get(path), new.get(path)
        if was is None or now is None:
            found.append(FileChange(path, ("added" if was is None else "removed",)))
            continue
        what = _what((was_dir, was), (now_dir, now))
        has_other_times = has_other_times or was.mtime_ns != now.mtime_ns
        if what:
            found.append(FileChange(path, what))
    return found, not found and has_other_times


def _what(was: tuple[str, FileEntry], now: tuple[str, FileEntry]) -> tuple[str, ...]:
    (was_dir, old), (now_dir, new) = was, now
    if old.kind != new.kind:
        return ("type",)
    same = {
        "content": old.kind != "f" or _digest(was_dir, old) == _digest(now_dir, new),
        "target": old.linkname == new.linkname,
        "device": old.kind not in "cb" or old.rdev == new.rdev,
        "mode": old.mode == new.mode,
        "owner": (old.uid, old.gid) == (new.uid, new.gid),
    }
    return tuple(name for name, is_same in same.items() if not is_same)


def _digest(directory: str, entry: FileEntry) -> str:
    return file_digest(f"{directory}/{entry.path}", entry, FileDigests())
