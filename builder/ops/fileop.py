"""The file operation: what its actions do to a root, and the doors to the trees that it copies from.

    selection(action, tree)         what a copy will read, for the cache key
    apply(op, root, trees)          carry the actions out, one after the other
    context_tree(root_dir, ...)     the build context as a source
    root_tree(fd)                   a snapshot as a source

Everything raises BuildError; a half-done `apply` leaves the root to be discarded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from builder.ops.chmod import mode_change, octal_mode
from builder.ops.copy import Attributes, Copier, prepare_target
from builder.ops.failures import reported
from builder.ops.localtree import ContextTree, context_tree, sources_of
from builder.ops.owner import owner_of
from builder.ops.select import Selection, Source, expand, items_of, selection
from builder.ops.tree import EMPTY_TREE, RootTree, SourceTree
from builder.plan import CopyAction, FileOp, MkdirAction, MkfileAction
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.paths import split

__all__ = [
    "ContextTree",
    "RootTree",
    "Selection",
    "apply",
    "context_tree",
    "expand",
    "root_tree",
    "selection",
    "sources_of",
]


def root_tree(fd: int) -> RootTree:
    """The source tree of a snapshot's merged view; `fd` stays the caller's and has to stay open."""
    return RootTree(fd)


def apply(op: FileOp, root: SafeRoot, trees: Mapping[int, SourceTree]) -> None:
    """Carry out a FileOp on a root; `trees` maps an input's index to what copies from it read."""
    for action in op.actions:
        if isinstance(action, CopyAction):
            with reported(f'copy "{action.source}" to "{action.dest}"'):
                _copy(action, root, trees.get(action.input, EMPTY_TREE))
        elif isinstance(action, MkdirAction):
            with reported(f'make directory "{action.path}"'):
                root.mkdir_all(action.path, action.mode & 0o777, owner_of(action.owner, root) if action.owner else None)
        else:
            with reported(f'write "{action.path}"'):
                _write_file(action, root)


def _copy(action: CopyAction, root: SafeRoot, tree: SourceTree) -> None:
    octal = octal_mode(action.chmod)
    attributes = Attributes(
        owner=owner_of(action.chown, root) if action.chown else None,
        change=mode_change(action.chmod),
        parent_mode=0o755 if octal is None else octal & 0o777,
    )
    for source in expand(action, tree):
        if action.attempt_unpack and source.entry.kind == "f" and _unpack(action, source, root, tree, attributes):
            continue
        target = prepare_target(
            root, action.dest, source, contents_only=action.dir_contents_only, attributes=attributes
        )
        with Copier(root, tree, attributes) as copier:
            if source.entry.kind == "d":
                copier.copy_tree(source.entry, items_of(action, tree, source), target)
            else:
                copier.copy_one(source.entry, target)


def _unpack(action: CopyAction, source: Source, root: SafeRoot, tree: SourceTree, attributes: Attributes) -> bool:
    """Unpack an archive below the destination; False if the source is none."""
    from builder.ops.archive import is_archive, unpack

    parent, name = split(f"/{source.entry.path}")
    with tree.open_dir(parent[1:]) as directory, open(directory.open_file(name), "rb") as file:
        tree.check(source.entry, os.fstat(file.fileno()))
        if not is_archive(file):
            return False
        file.seek(0)
        root.mkdir_all(action.dest, 0o755, attributes.owner)
        with root.open_dir(action.dest) as dest:
            unpack(file, dest, name=action.source, owner=attributes.owner)
    return True


def _write_file(action: MkfileAction, root: SafeRoot) -> None:
    real = root.real_path(action.path)
    root.mkdir_all(split(real)[0])
    directory, name = root.directory_of(real)
    with directory:
        directory.remove_all(name)
        fd = directory.create(name)
        with open(fd, "wb") as file:
            file.write(action.content.encode("utf-8", "surrogateescape"))
            os.fchmod(fd, action.mode & 0o777)
