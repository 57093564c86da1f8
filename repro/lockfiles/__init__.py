"""The files that locks are kept in, beside a project: their names and their formats."""
