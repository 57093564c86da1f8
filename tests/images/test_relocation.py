import os

import pytest

from repro.errors import EnvironmentFailed
from repro.images import relocation

NEW = "/opt/repro/env"
SHORT = "/home/a/store/envs/0123"
LONG = "/home/somebody-else/with/a/longer/path/envs/0123"
ROOM = 120


def placed(tmp_path, name, data):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def moved(source, old, new=NEW):
    member = relocation.moved("x", source, old, new)
    data = b"".join(member.open())
    assert len(data) == member.size
    return data


def binary(old):
    """Two strings with the path in them, filled up as an installer of conda packages does."""
    text = f"{old}/lib:{old}/lib64"
    return (
        b"\x7fELF"
        + text.encode().ljust(ROOM, b"\0")
        + b"tail"
        + f"{old}".encode().ljust(ROOM, b"\0")
    )


def test_texts_made_in_two_places_become_one(tmp_path):
    def text(old):
        return f"#!{old}/bin/python\nroot = '{old}'\nother = '{old}5/x'\n{old}".encode()

    results = {
        moved(placed(tmp_path, f"t{i}", text(old)), old).replace(f"{old}5".encode(), b"5")
        for i, old in enumerate((SHORT, LONG))
    }
    assert results == {f"#!{NEW}/bin/python\nroot = '{NEW}'\nother = '5/x'\n{NEW}".encode()}


def test_binaries_made_in_two_places_become_one_of_the_same_size(tmp_path):
    results = {
        moved(placed(tmp_path, f"b{i}", binary(old)), old) for i, old in enumerate((SHORT, LONG))
    }
    assert results == {binary(NEW)}


def test_a_binary_without_room_is_refused(tmp_path):
    source = placed(tmp_path, "b", b"\0/s/e\0")
    with pytest.raises(EnvironmentFailed, match="no room"):
        relocation.moved("x", source, "/s/e", NEW)


def test_what_does_not_hold_the_path_stays(tmp_path):
    source = placed(tmp_path, "p", b"\0plain" * 1000)
    assert moved(source, SHORT) == b"\0plain" * 1000
    assert moved(placed(tmp_path, "empty", b""), SHORT) == b""
    assert not relocation.names(source, SHORT)
    assert relocation.names(placed(tmp_path, "q", f"x {SHORT}/y".encode()), SHORT)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"{SHORT}/bin/x", f"{NEW}/bin/x"),
        (SHORT, NEW),
        ("../x", "../x"),
        (f"{SHORT}4/x", f"{SHORT}4/x"),
    ],
)
def test_links_into_the_folder_move_with_it(tmp_path, target, expected):
    link = tmp_path / "link"
    os.symlink(target, link)
    member = relocation.moved("x", str(link), SHORT, NEW)
    assert (member.kind, member.target) == ("link", expected)
