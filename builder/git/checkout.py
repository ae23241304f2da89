"""A commit's files, put into an empty directory.

They are root's, 0644 and 0755, and as old as the commit, so that the same commit gives the same tree wherever it is
checked out. Submodules come with it; marks that lead git to a repository stay only when the whole repository does.
"""

from __future__ import annotations

import errno
import os

from builder.errors import BuildError
from builder.git.command import Git, GitError, Place
from builder.git.refs import Revision
from builder.git.repository import Repository, object_format
from builder.ops.failures import reported
from builder.sandbox.fsops import Directory
from cache.namedtuple import NamedTuple

_LATEST_SECONDS = 1 << 33


class Wanted(NamedTuple):
    """What to check out of a revision."""

    revision: Revision
    commit: str
    subdir: str = ""
    keep_git_dir: bool = False
    """The repository itself as `.git`, when all of the tree is wanted."""
    submodules: bool = True
    commit_mtime: bool = True


def check_out(repository: Repository, wanted: Wanted, dest_dir: str, scratch_dir: str) -> None:
    """Write the files into `dest_dir`, with help of the empty `scratch_dir` on the same file system.

    Raises BuildError; what is in the directories then is to be thrown away.
    """
    with reported(f"check out {repository.git.shown}"):
        tree_dir = dest_dir
        if wanted.subdir:
            tree_dir = os.path.join(scratch_dir, "tree")
            os.mkdir(tree_dir, 0o755)
        keeps = wanted.keep_git_dir and not wanted.subdir
        if keeps:
            place = _own_repository(repository, wanted, tree_dir)
        else:
            place = _borrowed_repository(repository, wanted, os.path.join(scratch_dir, "git"), tree_dir)
        _write_files(repository, wanted, place, keeps=keeps)
        with Directory(os.open(tree_dir, os.O_RDONLY | os.O_DIRECTORY)) as tree:
            if wanted.subdir:
                _move_subdir(repository.git.shown, tree, wanted.subdir, dest_dir)
        if wanted.commit_mtime:
            seconds = repository.committed_seconds(wanted.commit)
            _set_times(dest_dir, max(0, min(seconds, _LATEST_SECONDS)) * 10**9)


def _borrowed_repository(repository: Repository, wanted: Wanted, git_dir: str, tree_dir: str) -> Place:
    """A repository beside the tree, which reads the objects of the store's."""
    repository.git.run(Place(tree_dir), "init", "--quiet", "--bare", object_format(wanted.commit), git_dir)
    with open(f"{git_dir}/objects/info/alternates", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{repository.path}/objects\n")
    return Place(tree_dir, git_dir, tree_dir)


def _own_repository(repository: Repository, wanted: Wanted, tree_dir: str) -> Place:
    """A repository within the tree, with the one commit and the name that it was fetched by."""
    git_dir = os.path.join(tree_dir, ".git")
    repository.git.run(Place(tree_dir), "init", "--quiet", object_format(wanted.commit))
    place = Place(tree_dir, git_dir, tree_dir)
    revision = wanted.revision
    refspec = f"+refs/pybuild/{revision.name}:{revision.ref}" if revision.ref else f"refs/pybuild/{revision.name}"
    options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1")
    repository.git.run(place, "fetch", *options, "--update-head-ok", "--", repository.path, refspec)
    return place


def _write_files(repository: Repository, wanted: Wanted, place: Place, *, keeps: bool) -> None:
    git = repository.git
    git.run(place, "config", "remote.origin.url", git.access.url)
    git.run(place, "config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    git.run(place, "checkout", "--quiet", "--detach", wanted.commit)
    if wanted.submodules and os.path.lexists(os.path.join(place.work_tree, ".gitmodules")):
        _fetch_submodules(git, place)
        if not keeps:
            _remove_marks(place.work_tree)
    if keeps:
        # An index written by checkout holds inode numbers and times of this machine.
        git.run(place, "read-tree", wanted.commit)


def _fetch_submodules(git: Git, place: Place) -> None:
    words = ("submodule", "--quiet", "update", "--init", "--recursive")
    try:
        git.run(place, *words, "--depth=1")
    except GitError as error:
        if not error.wants_history:
            raise
        git.run(place, *words)


def _remove_marks(tree_dir: str) -> None:
    """Remove the `.git` files of submodules, which name directories of this machine."""
    for _, directories, files, directory_fd in os.fwalk(tree_dir, follow_symlinks=False):
        if ".git" in (*files, *directories):
            Directory(directory_fd).remove_all(".git")


def _move_subdir(shown: str, tree: Directory, subdir: str, dest_dir: str) -> None:
    """Move what a directory of the tree holds to `dest_dir`. Every name on the way has to be a directory's own."""
    try:
        directory = Directory.beneath(tree.fd, subdir)
    except OSError as error:
        raise _no_subdir(shown, subdir, error) from error
    with directory, Directory(os.open(dest_dir, os.O_RDONLY | os.O_DIRECTORY)) as dest:
        for name in directory.names():
            os.rename(name, name, src_dir_fd=directory.fd, dst_dir_fd=dest.fd)


def _no_subdir(shown: str, subdir: str, error: OSError) -> BuildError:
    if error.errno == errno.ENOENT:
        return BuildError(
            f'{shown}: the repository has no directory "{subdir}"', hint="it is written URL#ref:directory"
        )
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return BuildError(
            f'{shown}: "{subdir}" is not a directory of the repository',
            hint="neither it nor what leads to it may be a file or a symbolic link",
        )
    return BuildError(f'{shown}: directory "{subdir}" cannot be opened: {os.strerror(error.errno or 0).lower()}')


def _set_times(root_dir: str, time_ns: int) -> None:
    """Give everything one time, directories after what is in them."""
    times = (time_ns, time_ns)
    for _, directories, files, directory_fd in os.fwalk(root_dir, topdown=False, follow_symlinks=False):
        for name in (*files, *directories):
            os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)
        os.utime(directory_fd, ns=times)
