"""Addresses that are fetched from somewhere else: mirrors, proxies and caches of a company.

`REPRO_MIRRORS` holds pairs `ADDRESS=MIRROR`, separated by spaces or commas. What begins with an
address is fetched from its mirror. Locks and records name the address alone, so that they are the
same whoever makes them and wherever they are used.
"""

from __future__ import annotations

from repro.errors import UsageError
from repro.location import without_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "REPRO_MIRRORS"


class Mirrors:
    """The mirrors of one call."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the variable. Raises UsageError for what is no pair."""
        self.pairs: dict[str, str] = {}
        for word in environ.get(VARIABLE, "").replace(",", " ").split():
            address, equals, mirror = word.partition("=")
            if not (address and equals and mirror):
                raise UsageError(
                    f"`{VARIABLE}`: `{word[:60]}` is not ADDRESS=MIRROR",
                    hints=[
                        "for example `https://conda.anaconda.org/=https://mirror.intern/conda/`"
                    ],
                )
            self.pairs[address] = mirror

    def of(self, address: str) -> str:
        """Give where to fetch an address from: itself, or its place in the longest that fits."""
        return _replaced(address, self.pairs)

    def origin(self, address: str) -> str:
        """Give the address that a place in a mirror stands for; neither is with a login."""
        public = {o: without_credentials(o) for pair in self.pairs.items() for o in pair}
        return _replaced(address, {public[m]: public[o] for o, m in self.pairs.items()})


def _replaced(address: str, pairs: Mapping[str, str]) -> str:
    fitting = [start for start in pairs if address.startswith(start)]
    if not fitting:
        return address
    longest = max(fitting, key=len)
    return pairs[longest] + address[len(longest) :]
