"""How a command's options say that layers become roots: --snapshotter and --userns."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.errors import UsageError
from cache.store import Store

if TYPE_CHECKING:
    from builder.sandbox.launcher import Launcher
    from builder.sandbox.snapshotter import Snapshotter


def chosen(wanted: str, store: Store, say: Callable[[str], object]) -> Snapshotter:
    """What --snapshotter says; `say` hears of one that was chosen although another would be faster, and why."""
    from builder.snapshotters.choose import choose

    choice = choose(wanted, store)
    if choice.reason:
        say(f"snapshotter {choice.snapshotter.name}: {choice.reason}")
    return choice.snapshotter


def is_remapped(args: argparse.Namespace) -> bool:
    """Whether root asked for steps as other users; those of anybody else are that anyhow."""
    if args.userns == "host" or os.geteuid() != 0:
        return False
    if args.snapshotter not in ("auto", "overlay"):
        raise UsageError(f"--userns=auto needs overlayfs, not --snapshotter {args.snapshotter}")
    return True


def remapped(store: Store) -> Launcher:
    """A launcher whose steps run as users that nobody else is."""
    from builder.sandbox.launcher import Launcher
    from builder.snapshotters.idmapped import Idmapped, make_namespace

    namespace = make_namespace()
    return Launcher(Idmapped(namespace, store.snapshots.scratch), namespace)
