"""A full check finds every damage, changes nothing, and a repair puts right what can be."""

from __future__ import annotations

import errno
import os

import pytest
from faults.scene import Outputs, Scene, read

from repro import canonical, digest, manifest
from repro.store import blobs as blobs_module
from repro.store import integrity
from repro.store.results import Result
from repro.store.sealed import seal, unseal
from repro.value import replace


@pytest.fixture
def place(tmp_path):
    made = Scene(tmp_path).open()
    made.publish(1)
    made.publish(2)
    yield made
    made.close()


def check(place, **options):
    return integrity.verify(place.home, place.blobs, place.results, **options)


class Elsewhere:
    """Another place, with blobs by name and results by key; it notes what it is asked for."""

    def __init__(self, place, blobs=None, results=None):
        self.place, self.blobs, self.results = place, blobs or {}, results or {}
        self.asked = []

    def fetch_blob(self, name, size):
        self.asked.append((name, size))
        return name in self.blobs and bool(self.place.blobs.put(self.blobs[name]))

    def fetch_result(self, key):
        self.asked.append((key, "result"))
        if key in self.results:
            self.place.results.put(self.results[key])
        return self.results.get(key)


def repaired(place, elsewhere=None):
    return integrity.repair(check(place), place.home, place.blobs, place.results, elsewhere)


def damage(path, data=b"wrong"):
    os.chmod(path, 0o600)
    with open(path, "wb") as file:
        file.write(data)


def blob_of(place, number, path="sub/b"):
    return place.blobs.path(digest.of_bytes(Outputs(number=number).files[path]))


def faults(report):
    return sorted((f.what, f.fault, f.repair) for f in report.findings)


def tree(root):
    return {
        os.path.join(base, name): read(os.path.join(base, name))
        for base, _folders, names in os.walk(root)
        for name in names
    }


def test_a_sound_store_is_sound(place):
    report = check(place)
    assert report.findings == ()
    assert (report.results, report.bits, report.unattested) == (2, 0, 0)
    assert report.blobs == len(list(place.blobs.names()))
    assert report.bytes == sum(size for _name, size in place.blobs.names())


def test_what_others_left_in_the_store_is_passed_over(place):
    before = check(place)
    for folder in ("cas", "ac", "envs"):
        root = place.home.path(folder)
        heads = [os.path.join(root, name) for name in os.listdir(root)]
        os.mkdir(os.path.join(root, "lost+found"))
        for where in (root, *heads):
            with open(os.path.join(where, ".nfs0001"), "xb"):
                pass
            os.mkdir(os.path.join(where, "a folder"))
    assert check(place) == before
    assert sorted(key for key, _used in place.results.keys())  # noqa: SIM118  (it is no dict)


def test_a_damaged_blob_is_found_with_the_results_that_name_it(place):
    damage(blob_of(place, 1))
    before = tree(place.home.root)
    report = check(place)
    assert faults(report) == [("blob", "corrupt", ""), ("result", "missing", "")]
    assert report.bits == integrity.CORRUPT
    (result,) = [f for f in report.findings if f.what == "result"]
    assert result.name == Outputs(number=1).key
    assert result.lacks == (digest.of_bytes(b"1"),)
    assert tree(place.home.root) == before


def test_without_another_copy_a_damage_is_taken_out_of_the_way(place):
    damage(blob_of(place, 1))
    report = repaired(place)
    assert faults(report) == [("blob", "corrupt", "quarantined"), ("result", "missing", "removed")]
    assert check(place).findings == ()
    assert len(os.listdir(place.home.path("quarantine"))) == 1
    assert (place.look(1), place.look(2)) == ("absent", "exact")


def test_a_blob_that_is_to_be_had_elsewhere_is_fetched(place):
    damage(blob_of(place, 1))
    name = digest.of_bytes(b"1")
    elsewhere = Elsewhere(place, {name: b"1"})
    report = repaired(place, elsewhere)
    assert faults(report) == [("blob", "corrupt", "fetched"), ("result", "missing", "fetched")]
    assert elsewhere.asked == [(name, 1)]
    assert (report.healed, report.bits) == (2, integrity.CORRUPT)
    assert place.look(1) == "exact"
    assert check(place).findings == ()


def test_what_is_fetched_is_not_believed_unseen(place):
    damage(blob_of(place, 1))
    report = repaired(place, Elsewhere(place, {digest.of_bytes(b"1"): b"other bytes"}))
    assert report.healed == 0
    assert faults(report) == [("blob", "corrupt", "quarantined"), ("result", "missing", "removed")]


def test_a_lost_list_of_files_is_fetched_with_all_that_it_names(place):
    step, kept = Outputs(number=1), {}
    result = place.results.get(step.key)
    for name in (result.outputs, digest.of_bytes(b"1")):
        kept[name] = place.blobs.get(name)
        os.unlink(place.blobs.path(name))

    elsewhere = Elsewhere(place, kept)
    assert faults(repaired(place, elsewhere)) == [("result", "missing", "fetched")]
    assert elsewhere.asked == [(result.outputs, None), (digest.of_bytes(b"1"), 1)]
    assert place.look(1) == "exact"


def test_a_result_that_cannot_be_completed_is_fetched_as_another_one_made_it(place):
    key = Outputs(number=1).key
    damage(blob_of(place, 1))
    other = replace(place.results.get(key), outputs=place.blobs.put(manifest.encode(())))
    other = replace(other, run_id="f" * 32, provenance="")
    report = repaired(place, Elsewhere(place, results={key: other}))
    assert faults(report) == [("blob", "corrupt", "quarantined"), ("result", "missing", "fetched")]
    assert report.healed == 1
    assert place.results.get(key) == other
    assert check(place).findings == ()


def test_a_result_that_is_fetched_is_not_believed_unseen(place):
    key = Outputs(number=1).key
    damage(blob_of(place, 1))
    elsewhere = Elsewhere(place, results={key: replace(place.results.get(key), outputs="0" * 64)})
    assert ("result", "missing", "fetched") not in faults(repaired(place, elsewhere))


def test_a_damaged_result_is_fetched_and_else_put_aside(place):
    step = Outputs(number=1)
    good = place.results.get(step.key)
    damage(place.results.path(step.key))
    elsewhere = Elsewhere(place, results={step.key: good})
    assert faults(repaired(place, elsewhere)) == [("result", "corrupt", "fetched")]
    assert place.look(1) == "exact"
    assert len(os.listdir(place.home.path("quarantine"))) == 1


def test_a_damaged_result_is_put_aside(place):
    path = place.results.path(Outputs(number=1).key)
    damage(path, read(path).replace(b"make", b"fake"))
    assert faults(check(place)) == [("result", "corrupt", "")]
    assert faults(repaired(place)) == [("result", "corrupt", "quarantined")]
    assert check(place).findings == ()


def test_a_result_of_a_later_version_is_left_alone(place):
    key = Outputs(number=1).key
    body = canonical.decode(unseal(read(place.results.path(key))))
    damage(place.results.path(key), seal(canonical.encode({**body, "schema": "repro.result/9"})))
    report = repaired(place)
    assert faults(report) == [("result", "unchecked", "")]
    assert report.bits == integrity.UNCHECKED
    assert "repro.result/9" in report.findings[0].detail


def test_a_provenance_about_something_else_is_not_trusted(place):
    one, two = (place.results.get(Outputs(number=n).key) for n in (1, 2))
    place.results.put(replace(one, provenance=two.provenance))
    report = check(place)
    assert faults(report) == [("result", "untrusted", "")]
    assert report.bits == integrity.UNTRUSTED
    assert faults(repaired(place)) == [("result", "untrusted", "removed")]
    assert place.look(1) == "absent"


def test_a_result_without_provenance_is_counted_and_no_fault(place):
    one = place.results.get(Outputs(number=1).key)
    place.results.put(replace(one, provenance="0" * 64))
    report = check(place)
    assert (report.findings, report.unattested) == ((), 1)


def test_a_list_of_files_that_is_none_is_found(place):
    one = place.results.get(Outputs(number=1).key)
    place.results.put(replace(one, outputs=place.blobs.put(b"no manifest")))
    assert faults(check(place)) == [("result", "corrupt", "")]


def test_memos_locks_and_markers_are_read(place):
    place.memos.put("folder", "/x", {"a": 1})
    damage(place.memos.path("folder", "/x"))
    damage_at = place.home.path("memo", "environment-abc.json")
    for path in (damage_at, place.home.path("lockfiles", "request-1")):
        with open(path, "wb") as file:
            file.write(b"{")
    os.mkdir(place.home.path("envs", "abc"))
    with open(place.home.path("envs", "abc", ".repro-env.json"), "wb") as file:
        file.write(b"{")
    assert faults(check(place)) == [
        ("lock", "corrupt", ""),
        ("marker", "corrupt", ""),
        ("memo", "corrupt", ""),
        ("memo", "corrupt", ""),
    ]
    repaired(place)
    assert faults(check(place)) == [("marker", "corrupt", "")]  # `repro env verify` knows more


def test_a_blob_that_is_no_file_is_found_and_put_aside(place):
    name = "ab" + "0" * 62
    os.makedirs(place.blobs.path(name))
    os.symlink("/etc/passwd", place.home.path("cas", "ab", "link"))
    assert faults(repaired(place)) == [("blob", "corrupt", "quarantined")]
    assert check(place).findings == ()


def test_what_a_disk_cannot_read_is_corrupt_and_what_is_forbidden_is_not_checked():
    for number, fault in ((errno.EIO, "corrupt"), (errno.EACCES, "unchecked")):
        finding = integrity._unreadable("blob", "x", OSError(number, os.strerror(number)))
        assert finding.fault == fault


def test_the_digest_of_what_cannot_be_opened_is_none(tmp_path):
    os.symlink("nowhere", tmp_path / "link")
    assert blobs_module.digest_at(str(tmp_path / "link")) == ""


def test_many_blobs_are_read_by_several_threads(place):
    for number in range(250):
        place.blobs.put(b"%d" % number)
    damage(place.blobs.path(digest.of_bytes(b"200")))
    assert faults(check(place, jobs=3)) == [("blob", "corrupt", "")]


def test_a_result_that_is_just_being_made_again_is_not_removed(place):
    damage(blob_of(place, 1))
    key = Outputs(number=1).key
    with place.home.lock(f"key-{key[:32]}"):
        assert ("result", "missing", "") in faults(repaired(place))
    assert isinstance(place.results.get(key), Result)


def test_a_child_of_a_result_is_checked_too(place):
    one = place.results.get(Outputs(number=1).key)
    child = {"artifacts": digest.of_bytes(manifest.encode(())), "name": "child"}
    place.results.put(replace(one, children=(child,)))
    assert check(place).findings == ()
    place.results.put(replace(one, children=({**child, "artifacts": "0" * 64},)))
    assert faults(check(place)) == [("result", "missing", "")]
