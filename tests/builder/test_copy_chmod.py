"""--chmod: octal and symbolic, in the dialect of the Dockerfile frontend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.ops.chmod import mode_change, octal_mode


@pytest.mark.parametrize(
    ("text", "mode", "is_dir", "expected"),
    [
        ("", 0o4751, False, 0o4751),
        ("755", 0o600, False, 0o755),
        ("0644", 0o4755, True, 0o644),
        ("4711", 0, True, 0o4711),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o700, True, 0o755),
        ("a-r,u+x", 0o644, False, 0o300),
        ("+x", 0o644, False, 0o755),
        ("u+s,g+s,+t", 0o644, False, 0o7644),
        ("go=", 0o755, True, 0o700),
        ("g=u", 0o740, False, 0o770),
        ("o=g-w", 0o775, False, 0o775),
        ("u-X", 0o644, False, 0o644),
        ("a-X", 0o755, False, 0o644),
        ("ug+r-w", 0o220, False, 0o440),
        ("a=rx,u+w", 0o7000, False, 0o1755),
        ("o+s", 0o644, False, 0o644),
        ("o+t", 0o644, False, 0o644),
        ("=t", 0o644, False, 0o1644),
    ],
)
def test_modes(text: str, mode: int, is_dir: bool, expected: int) -> None:
    assert oct(mode_change(text)(mode, is_dir)) == oct(expected)


@pytest.mark.parametrize("text", ["rwxr", "u", "u+r,", ",", "u+q", "8", "07778", "10000", "7_5", "0o755", "755 "])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(BuildError, match="invalid chmod parameter"):
        mode_change(text)


def test_symbolic_text_is_not_octal() -> None:
    assert octal_mode("u+x") is None
    assert octal_mode("") is None
    assert octal_mode("0") == 0


@given(st.text("ugoa+-=rwxXst,0123456789", max_size=12), st.integers(0, 0o7777), st.booleans())
def test_any_text_is_a_mode_or_a_build_error(text: str, mode: int, is_dir: bool) -> None:
    try:
        change = mode_change(text)
    except BuildError:
        return
    assert 0 <= change(mode, is_dir) <= 0o7777
