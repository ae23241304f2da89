"""The page of attacks, made from the attacks: `python -m tests.attacks.page > SECURITY.md`."""

from __future__ import annotations

import sys

from tests.attacks.catalogue import Elsewhere

ELSEWHERE: tuple[Elsewhere, ...] = ()


def page() -> str:
    return ""


if __name__ == "__main__":
    sys.stdout.write(page())
