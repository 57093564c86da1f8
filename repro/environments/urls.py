"""Where packages come from: URLs without credentials, and local ones relative to the project."""

from __future__ import annotations

import os
import posixpath
from urllib.parse import quote, unquote, urlsplit, urlunsplit

LOGINS = ("ssh", "git+ssh")


def of_path(path: str) -> str:
    """Give the URL of a local file or folder."""
    return "file://" + quote(os.fsencode(path))


def path(url: str) -> str:
    """Give the path that a `file:` URL names; empty for another URL."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else ""


def public(url: str) -> str:
    """Give `url` without credentials, which a query may be; the login name of ssh is none."""
    parts = urlsplit(url)
    query = "" if parts.scheme in ("http", "https") else parts.query
    login, _, host = parts.netloc.rpartition("@")
    name = login.partition(":")[0]
    kept = f"{name}@{host}" if name and parts.scheme in LOGINS else host
    return urlunsplit(parts._replace(netloc=kept, query=query, fragment=""))


def filename(url: str) -> str:
    """Give the name of the file at `url`, or at a relative path."""
    return posixpath.basename(unquote(urlsplit(url).path))


def is_checkout(requirement: str) -> bool:
    """Say whether a requirement is fetched from a version control system."""
    place = requirement.partition(" @ ")[2] or requirement
    scheme, found, _ = place.strip().partition("://")
    return bool(found) and "+" in scheme


def checkout(system: str, url: str, commit: str, subdirectory: str | None) -> str:
    """Give the URL by which an installer fetches one commit."""
    inside = f"#subdirectory={subdirectory}" if subdirectory else ""
    return f"{system}+{public(url)}@{commit}{inside}"


def kept(url: str, root: str) -> str:
    """Give `url` as a lock keeps it: public, and relative to the project for a file inside it."""
    local = path(url)
    if root and local.startswith(root.rstrip("/") + "/"):
        return os.path.relpath(local, root)
    return public(url)


def placed(url: str, root: str) -> str:
    """Give what `kept` was made of, for the project in the folder `root`."""
    return url if "://" in url else of_path(os.path.join(root, url))
