"""Our NamedTuple against that of `typing`: the same classes in all that can be done with them."""

from __future__ import annotations

import copy
import pickle
import typing

import pytest

from cache.namedtuple import NamedTuple


class Ours(NamedTuple):
    """A row."""

    name: str
    size: int = 5
    parts: tuple[str, ...] = ()

    @property
    def double(self) -> int:
        return self.size * 2


class Theirs(typing.NamedTuple):
    """A row."""

    name: str
    size: int = 5
    parts: tuple[str, ...] = ()

    @property
    def double(self) -> int:
        return self.size * 2


class Further(Ours):
    def __new__(cls, name: str) -> Further:
        return super().__new__(cls, name, 7)


class Nothing(NamedTuple):
    pass


WRONG: list[tuple[tuple[object, ...], dict[str, object]]] = [
    ((), {}),
    (("a", 1, (), 2), {}),
    (("a",), {"name": "b"}),
    (("a",), {"nme": "b"}),
]


def test_the_values_are_the_same() -> None:
    for ours, theirs in [
        (Ours("a"), Theirs("a")),
        (Ours("a", parts=("b",)), Theirs("a", parts=("b",))),
        (Ours(size=1, name="a"), Theirs(size=1, name="a")),
        (Ours._make(("a", 1, ())), Theirs._make(("a", 1, ()))),
        (Ours("a")._replace(size=2), Theirs("a")._replace(size=2)),
    ]:
        assert ours == theirs
        assert hash(ours) == hash(theirs)
        assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
        assert ours._asdict() == theirs._asdict()
        assert (ours.name, ours.size, ours.parts, ours.double) == (
            theirs.name,
            theirs.size,
            theirs.parts,
            theirs.double,
        )
        assert pickle.loads(pickle.dumps(ours)) == ours == copy.deepcopy(ours)
        assert type(pickle.loads(pickle.dumps(ours))) is Ours


def test_the_classes_are_the_same() -> None:
    for name in ("_fields", "_field_defaults", "__match_args__", "__doc__", "__slots__"):
        assert getattr(Ours, name) == getattr(Theirs, name), name
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Theirs)
    assert not hasattr(Ours("a"), "__dict__")
    assert (Further("a"), type(Further("a"))) == (("a", 7, ()), Further)
    assert Nothing() == ()


@pytest.mark.parametrize(("positional", "named"), WRONG)
def test_wrong_arguments_are_refused(positional: tuple[object, ...], named: dict[str, object]) -> None:
    for row in (Ours, Theirs):
        with pytest.raises(TypeError):
            row(*positional, **named)  # type: ignore[arg-type]


def test_fields_cannot_be_set_or_made_up() -> None:
    for row in (Ours("a"), Theirs("a")):
        with pytest.raises(AttributeError):
            row.name = "b"  # type: ignore[misc]
        with pytest.raises(ValueError, match="Got unexpected field names"):
            row._replace(nme="b")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="Expected 3 arguments, got 2"):
            row._make(("a", 1))
    for base in (NamedTuple, typing.NamedTuple):
        with pytest.raises(TypeError):
            exec("class Wrong(base):\n    a: int = 1\n    b: int", {"base": base})
