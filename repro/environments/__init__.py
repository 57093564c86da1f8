"""Environments: what a request resolves to, and how that is made on this machine."""
