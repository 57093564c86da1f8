"""Doors to the machine: files, locks and the facts of the host."""
