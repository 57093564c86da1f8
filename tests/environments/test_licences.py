"""The licences that packages state, in the fields where they state them."""

from __future__ import annotations

import pytest
from environments.realized import conda_package, conda_prefix, distribution

from repro.environments.licences import licences, of_metadata


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"license-expression": ["MIT OR Apache-2.0"]},
            ("MIT OR Apache-2.0", "License-Expression"),
        ),
        ({"classifier": ["License :: OSI Approved :: MIT License"]}, ("MIT", "Classifier")),
        (
            {"classifier": ["License :: OSI Approved :: BSD License"], "license": ["BSD-2-Clause"]},
            ("BSD-2-Clause", "License"),
        ),
        ({"classifier": ["License :: OSI Approved :: BSD License"]}, ("BSD License", "Classifier")),
        (
            {
                "classifier": [
                    "License :: OSI Approved :: MIT License",
                    "License :: OSI Approved :: BSD License",
                ],
                "license": ["UNKNOWN"],
            },
            ("MIT License, BSD License", "Classifier"),
        ),
        (
            {
                "classifier": ["License :: OSI Approved :: BSD License"],
                "license": ["Copyright (c) 2001\nAll rights reserved"],
            },
            ("BSD License", "Classifier"),
        ),
        ({"license": ["Copyright (c) 2001\nAll rights"]}, ("Copyright (c) 2001", "License")),
        ({"license": ["UNKNOWN"]}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_the_field_that_says_most_counts(fields, expected):
    assert of_metadata(fields) == expected


def test_licences_of_a_prefix(tmp_path):
    conda_prefix(str(tmp_path))
    site = "lib/python3.11/site-packages"
    files = distribution(site, "gamma", "1.0", License="Apache-2.0")
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    extracted = tmp_path / "pkgs" / "old-1-0" / "info"
    extracted.mkdir(parents=True)
    (extracted / "index.json").write_text('{"license": "Zlib"}')
    folder = str(extracted.parent)
    conda_package(str(tmp_path), "old", "1", {"x": "x"}, extracted_package_dir=folder)
    assert [(o.package, o.expression, o.source) for o in licences(str(tmp_path))] == [
        ("gamma", "Apache-2.0", "License"),
        ("libsmall", "GPL-3.0", "license"),
        ("old", "Zlib", "license"),
        ("py-tiny", "MIT", "license"),
        ("python", "PSF-2.0", "license"),
    ]


def test_a_prefix_without_packages_has_none(tmp_path):
    assert licences(str(tmp_path)) == ()
