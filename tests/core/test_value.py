from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro import value
from repro.value import Value


class Point(Value):
    x: int
    y: int = 0


class Shape(Value):
    name: str
    points: tuple[Point, ...] = ()


CLASSES = {"Point": Point, "Shape": Shape}
points = st.builds(lambda x, y: Point(x=x, y=y), st.integers(), st.integers())
shapes = st.builds(
    lambda n, p: Shape(name=n, points=tuple(p)), st.text(), st.lists(points, max_size=5)
)


def test_a_value_has_its_defaults_and_nothing_else():
    assert Point(x=1).y == 0
    with pytest.raises(TypeError, match="needs `x`"):
        Point(y=1)
    with pytest.raises(TypeError, match="has no `z`"):
        Point(x=1, z=2)


def test_a_value_is_frozen():
    with pytest.raises(AttributeError, match="frozen"):
        Point(x=1).x = 2
    with pytest.raises(AttributeError):
        Point(x=1).other = 2


def test_values_of_two_classes_are_never_equal():
    class Other(Value):
        x: int
        y: int = 0

    assert Point(x=1) != Other(x=1)


@given(shapes)
def test_load_gives_back_what_dump_took(shape):
    assert value.load(value.dump(shape), CLASSES) == shape


@given(points, st.integers())
def test_replace_changes_one_field_of_a_copy(point, x):
    changed = value.replace(point, x=x)
    assert (changed.x, changed.y) == (x, point.y)
    assert hash(value.replace(changed, x=point.x)) == hash(point)


def test_load_notices_data_of_another_version():
    with pytest.raises(KeyError):
        value.load({"": "Gone"}, CLASSES)
    with pytest.raises(TypeError):
        value.load({"": "Point", "x": 1, "z": 2}, CLASSES)
