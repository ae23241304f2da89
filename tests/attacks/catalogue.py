"""Attacks as values: what each attempts, where it comes from, and what has to come of it. `attack` collects them.

An attack is a function of a Scene that tries it by the command line and asserts that it fails; the canaries of the host
are looked at after each, and what it left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.attacks.scene import Scene

Attempt = Callable[["Scene"], None]
EVERYBODY, ROOT = ("root", "ordinary"), ("root",)


class Attack(NamedTuple):
    """One attack. `who` are the users that it is tried as; `why_not` says why not as the other."""

    id: str
    area: str
    source: str
    attempt: str
    expected: str
    run: Attempt
    who: tuple[str, ...]
    why_not: str = ""
    is_alone: bool = False
    """Whether it changes a setting of the machine, and is tried while no other attack is."""


class Elsewhere(NamedTuple):
    """An attack that another test of the project makes: `test` is its file, and its name after `::` if it is one."""

    area: str
    source: str
    attempt: str
    expected: str
    test: str


ATTACKS: list[Attack] = []


def attack(
    area: str, source: str, attempt: str, expected: str, *, root_only: str = "", is_alone: bool = False
) -> Callable[[Attempt], Attempt]:
    """Enter a function as an attack; `root_only` says why an ordinary user does not try it."""

    def enter(run: Attempt) -> Attempt:
        name = getattr(run, "__name__", "")
        who = ROOT if root_only else EVERYBODY
        ATTACKS.append(Attack(name, area, source, attempt, expected, run, who, root_only, is_alone))
        return run

    return enter


def catalogue() -> list[Attack]:
    """Every attack, in the order of the pages."""
    from tests.attacks import contexts, documents, layers, mounts, paths, processes, resources, rights, secrets

    assert all((processes, rights, paths, mounts, layers, documents, contexts, secrets, resources))
    return ATTACKS
