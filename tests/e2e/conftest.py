"""Ordinary users with the command, and the base image where they can read it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ordinary import OrdinaryUser, ordinary_user


@pytest.fixture(scope="session")
def any_user() -> Iterator[OrdinaryUser]:
    with ordinary_user("user") as user:
        yield user


@pytest.fixture(scope="session")
def any_lone_user() -> Iterator[OrdinaryUser]:
    with ordinary_user("lone", with_ids=False) as user:
        yield user


@pytest.fixture
def user(any_user: OrdinaryUser) -> OrdinaryUser:
    """Somebody with a range of ids, an empty store and an empty context."""
    return _fresh(any_user)


@pytest.fixture
def lone_user(any_lone_user: OrdinaryUser) -> OrdinaryUser:
    """Somebody with his own id and no other."""
    return _fresh(any_lone_user)


@pytest.fixture(scope="session")
def base_for_all(base_layout: Path, any_user: OrdinaryUser) -> list[str]:
    """The words that give `FROM base` its meaning to everybody."""
    shared = any_user.home / "base"
    shutil.copytree(base_layout, shared)
    any_user.give(shared)
    return ["--build-context", f"base=oci-layout://{shared}"]


def _fresh(user: OrdinaryUser) -> OrdinaryUser:
    for directory in (user.root, user.cwd):
        shutil.rmtree(directory, ignore_errors=True)
    user.cwd.mkdir()
    user.give(user.cwd)
    user.prefix = []
    return user
