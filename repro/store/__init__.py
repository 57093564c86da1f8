"""The content-addressed store of a machine, and the history of its runs."""
