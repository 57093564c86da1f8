"""Under which licences the packages of an environment are, by what they say themselves."""

from __future__ import annotations

import os

from repro.environments import packages
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = 100
CLASSIFIER = "License :: "
UNSAID = ("", "unknown", "none", "n/a")
SPDX = {
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""The classifiers that mean one licence. `BSD License`, for one, means several."""


class Licence(Value):
    """The licence of one package.

    `expression` is in the form of SPDX where the package says it so, or by a classifier that
    means one; else its own words, on one line; empty where it says nothing. `source` is the field
    that it stands in.
    """

    package: str
    version: str
    manager: str
    expression: str = ""
    source: str = ""


def licences(prefix: str) -> tuple[Licence, ...]:
    """Give the licence of every package in the environment at `prefix`, by name."""
    found = []
    for package in packages.read(prefix).packages:
        if package.manager == "conda":
            expression, source = package.licence, "license" if package.licence else ""
        else:
            about = packages.header(os.path.join(prefix, package.folder))
            expression, source = of_metadata(about)
        found.append(
            Licence(
                package=package.name,
                version=package.version,
                manager=package.manager,
                expression=expression,
                source=source,
            )
        )
    return tuple(found)


def of_metadata(about: Mapping[str, list[str]]) -> tuple[str, str]:
    """Give the licence that the fields of a Python package name, and the field.

    `License-Expression` is in SPDX's form. Of the older fields, a classifier that means one
    licence is more exact than free text, and several leave open how they belong together.
    """
    expression = about.get("license-expression", [""])[0]
    if expression:
        return expression, "License-Expression"
    named = [c for c in about.get("classifier", []) if c.startswith(CLASSIFIER)]
    words = [c.rpartition(" :: ")[2] for c in named]
    if len(words) == 1 and words[0] in SPDX:
        return SPDX[words[0]], "Classifier"
    text = about.get("license", [""])[0]
    lines = [line for line in text.splitlines() if line.strip()]
    is_name = len(lines) == 1 and len(text) <= LONGEST and text.lower() not in UNSAID
    if words and not is_name:
        return ", ".join(words), "Classifier"
    # some packages put the whole text of their licence here
    return (lines[0][:LONGEST], "License") if is_name or len(lines) > 1 else ("", "")
