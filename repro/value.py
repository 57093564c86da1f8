"""Frozen, keyword-only, slotted values: what `dataclasses` gives, without its 15 ms import.

A cache hit must import almost nothing, and every value of the core lies on that path, so the
few lines that are needed stand here. Type checkers see a dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    V = TypeVar("V", bound="Value")
else:

    def dataclass_transform(**_options):  # noqa: ANN003, ANN201  (its types are typing's)
        """Do nothing at run time; the real one marks `ValueType` for type checkers."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=True)
class ValueType(type):
    """Turns the annotations of a class body into slots and remembers their defaults."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> ValueType:
        """Make the class; a default must be immutable, since every instance shares it.

        `__derived__` names slots that are no fields, for what follows from the fields.
        """
        fields: list[str] = []
        defaults: dict[str, Any] = {}
        for base in bases:
            fields += getattr(base, "__fields__", ())
            defaults.update(getattr(base, "__defaults__", {}))
        own = [
            field
            for field, kind in namespace.get("__annotations__", {}).items()
            if not str(kind).startswith("ClassVar")
        ]
        for field in own:
            if field in namespace:
                defaults[field] = namespace.pop(field)
        namespace["__slots__"] = (*own, *namespace.pop("__derived__", ()))
        namespace["__fields__"] = (*fields, *own)
        namespace["__defaults__"] = defaults
        return super().__new__(mcs, name, bases, namespace)


class Value(metaclass=ValueType):
    """Base of all values: equal when of one class with equal fields; never changed."""

    if TYPE_CHECKING:
        __fields__: ClassVar[tuple[str, ...]]
        __defaults__: ClassVar[Mapping[str, Any]]

    def __init__(self, **given: Any) -> None:
        """Set every field from `given` or its default; refuse a missing or unknown one."""
        defaults = self.__defaults__
        for field in self.__fields__:
            if field in given:
                object.__setattr__(self, field, given.pop(field))
            elif field in defaults:
                object.__setattr__(self, field, defaults[field])
            else:
                msg = f"{type(self).__name__} needs `{field}`"
                raise TypeError(msg)
        if given:
            msg = f"{type(self).__name__} has no `{next(iter(given))}`"
            raise TypeError(msg)

    def __setattr__(self, field: str, _value: object) -> None:
        """Refuse: a value is never changed, see `replace`."""
        msg = f"{type(self).__name__}.{field} cannot be set: values are frozen"
        raise AttributeError(msg)

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        """Compare field by field; another class is never equal."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f) == getattr(other, f) for f in self.__fields__)

    def __hash__(self) -> int:
        """Hash the fields; fails, as a tuple would, where one cannot be hashed."""
        return hash((type(self).__name__, *(getattr(self, f) for f in self.__fields__)))

    def __repr__(self) -> str:
        """Show what the constructor would take."""
        inside = ", ".join(f"{f}={getattr(self, f)!r}" for f in self.__fields__)
        return f"{type(self).__name__}({inside})"


def replace(value: V, **changes: Any) -> V:
    """Give a copy of `value` in which the fields named by `changes` differ."""
    return type(value)(**{**{f: getattr(value, f) for f in value.__fields__}, **changes})


def dump(value: object) -> Any:
    """Turn nested values into plain data that `canonical.encode` takes; `load` turns it back.

    A value becomes a mapping whose key `""` names its class. Tuples become lists.
    """
    if isinstance(value, Value):
        plain = {f: dump(getattr(value, f)) for f in value.__fields__}
        plain[""] = type(value).__name__
        return plain
    if isinstance(value, (tuple, list)):
        return [dump(item) for item in value]
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    return value


def load(plain: Any, classes: Mapping[str, type[Value]]) -> Any:
    """Turn what `dump` gave back into values of `classes`; lists become tuples.

    Raises KeyError for a class that is not among them and TypeError for fields that do not fit,
    so that data of another version is noticed.
    """
    if isinstance(plain, dict):
        inside = {key: load(item, classes) for key, item in plain.items() if key}
        return classes[plain[""]](**inside) if "" in plain else inside
    if isinstance(plain, list):
        return tuple(load(item, classes) for item in plain)
    return plain
