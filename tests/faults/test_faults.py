"""The short forms of the faults that `deep.py` plants, and the proof that they find what they must."""

from __future__ import annotations

from faults.forms import short, watches

pytestmark = watches


def test_800_kills_at_system_calls_leave_nothing_wrong():
    short("kills")


def test_garbage_is_collected_between_any_two_calls_of_a_publication():
    short("collections")


def test_errors_of_single_system_calls_lose_nothing():
    short("errors")


def test_errors_of_system_calls_of_commands_are_said_in_one_line():
    short("command-errors")


def test_disks_that_lost_what_was_not_synced():
    short("lost-writes")


def test_power_cuts_of_real_file_systems():
    short("power")


def test_300_flipped_bits_and_cut_files_are_found_and_never_served():
    short("flips")


def test_outputs_that_were_changed_behind_their_size_and_time_are_seen():
    short("edits")


def test_kills_of_real_commands():
    short("command-kills")


def test_disks_that_are_full_at_any_level():
    short("full-disks")


def test_two_machines_on_one_store():
    short("two-hosts")


def test_many_processes_and_a_collector():
    short("crowd")


def test_hostile_inputs_are_refused_in_words_and_never_run():
    short("hostile")


def test_readers_of_what_others_write_raise_what_they_declare_and_nothing_else():
    short("fuzz")


def test_each_planted_fault_of_the_store_is_found():
    short("mutants")
