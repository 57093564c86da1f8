"""Count words, with a package of the conda environment."""

import collections
import json
import sys

import six

counts = collections.Counter(six.text_type(sys.argv[1]).split())
with open("counts.json", "w") as file:
    json.dump(dict(sorted(counts.items())), file, indent=1)
print(f"{sum(counts.values())} words, {len(counts)} different, six {six.__version__}")
