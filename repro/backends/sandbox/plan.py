"""What a step sees of the machine, as a value. Nothing here touches a file.

The system is visible, with what programs need of `/etc`; so are the private folders of the step
and what it declares. Everything else is not there.
"""

from __future__ import annotations

import posixpath
from functools import cache

from repro.errors import Unsupported
from repro.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from repro.ports import Confinement

    Look = Callable[[str], str | None]
    Thing = tuple[str, str, str]

# Where a distribution and those who add to it put programs; each is shown if it is there.
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sys"),
    *("/nix/store", "/gnu/store", "/run/current-system", "/run/opengl-driver"),
)
ETC = (
    *("alternatives", "crypto-policies", "fonts", "glvnd", "group", "ld.so.cache", "ld.so.conf"),
    *(
        "ld.so.conf.d",
        "locale.alias",
        "localtime",
        "magic",
        "mime.types",
        "nsswitch.conf",
        "OpenCL",
        "os-release",
    ),
    *("passwd", "protocols", "R", "services", "timezone", "vulkan"),
    *("ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf"),
    *("pki/ca-trust", "pki/java", "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf"),
    *("java", *(f"java-{n}-openjdk" for n in (8, 11, 17, 21, 25))),
    *("perl", "python3", *(f"python3.{n}" for n in range(9, 16))),
    *("ImageMagick-6", "ImageMagick-7"),
)
NETWORK_ETC = ("gai.conf", "host.conf", "hosts", "resolv.conf")
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
# What computes: without it, a step on a machine that has it would silently be slow.
DEVICES = (
    *("/dev/dri", "/dev/kfd", "/dev/accel", "/dev/dxg"),
    *("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"),
    *(f"/dev/nvidia{n}" for n in range(16)),
)
TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108  (names inside the view)
MOST_LINKS = 40
BOUND = ("read", "write", "device")


class View(Value):
    """What is visible where: (kind, path inside, source), what comes first being below the rest.

    Kinds are `read` and `write` (the source is a path of the machine, without symbolic links),
    `device`, `link` (the source is its target), `text` (the source is its content), `proc` and
    `dev`.
    """

    shown: tuple[Thing, ...]
    network: bool = True
    port: int = 0

    def original(self, path: str) -> str | None:
        """Give the path on the machine of what is seen at an absolute `path`, None for nothing.

        Symbolic links inside of what is shown are not followed.
        """
        things = {inside: (kind, source) for kind, inside, source in self.shown}
        path = posixpath.normpath(path)
        for _ in range(MOST_LINKS):
            place = _nearest(path, things)
            if place is None:
                return None
            kind, source = things[place]
            if kind in BOUND:
                return source + path[len(place) :]
            if kind != "link":
                return path
            path = posixpath.normpath(
                posixpath.join(posixpath.dirname(place), source) + path[len(place) :]
            )
        return None

    def shows(self, path: str) -> bool:
        """Say whether the machine's own file at `path` is seen, and not a private one."""
        original = self.original(path)
        private = [source for _, inside, source in self.shown if inside in TEMPORARY]
        return original is not None and (
            original == path or not any(within(original, source) for source in private)
        )


def within(path: str, folder: str) -> bool:
    """Say whether `path` is `folder` or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def system(look: Look, *, network: bool) -> tuple[Thing, ...]:
    """Give what every step sees of a machine.

    `look` tells of a path of the machine: the target of a symbolic link, an empty text for
    anything else, None for nothing.
    """
    found = _Found(look)
    for path in SYSTEM:
        found.add("read", path, path)
    for name in (*ETC, *(NETWORK_ETC if network else ())):
        found.add("read", f"/etc/{name}", f"/etc/{name}", follow=True)
    if not network:
        found.shown.append(("text", "/etc/hosts", HOSTS))
    found.shown += [("proc", "/proc", ""), ("dev", "/dev", "")]
    for path in DEVICES:
        found.add("device", path, path)
    return _settled(found.shown)


def view(confinement: Confinement, machine: Iterable[Thing], look: Look) -> View:
    """Give what a confined step sees, beside what `system` gave for the `machine`.

    Raises Unsupported for what cannot be declared.
    """
    found = _Found(look)
    for path in TEMPORARY if confinement.temporary else ():
        found.add("write", path, confinement.temporary, follow=True)
    for host, inside in confinement.readable:
        if posixpath.normpath(host) == "/":
            raise Unsupported("`/` cannot be declared: name the folders that are needed")
        found.add("read", inside, host, follow=host != inside)
    for path in confinement.writable:
        found.add("write", path, path)
    return View(
        shown=_settled([*machine, *found.shown]),
        network=reaches_network(confinement),
        port=confinement.port,
    )


def reaches_network(confinement: Confinement) -> bool:
    """Say whether a step has the machine's network."""
    return confinement.network and confinement.level != "hermetic"


class _Found:
    """What is to be shown, as it is found."""

    def __init__(self, look: Look) -> None:
        self._look = cache(look)
        self.shown: list[Thing] = []

    def add(self, kind: str, inside: str, path: str, *, follow: bool = False) -> None:
        """Show `path`, if it is there, at `inside`.

        Unless to `follow`, both are the same, and symbolic links on the way there are shown as
        such, so that every spelling of the path works.
        """
        links, real = self._spelled(path)
        if self._look(real) is None:
            return
        if follow:
            self.shown.append((kind, inside, real))
        else:
            self.shown += [("link", place, target) for place, target in links]
            self.shown.append((kind, real, real))

    def _spelled(self, path: str) -> tuple[list[tuple[str, str]], str]:
        """Give the symbolic links on the way to a path, and where they lead."""
        links: list[tuple[str, str]] = []
        place, left = "", path.split("/")[::-1]
        while left:
            name = left.pop()
            if name == "..":
                place = posixpath.dirname(place)
            elif name not in {"", "."}:
                target = self._look(f"{place}/{name}")
                if not target:
                    place = f"{place}/{name}"
                    continue
                links.append((f"{place}/{name}", target))
                if len(links) > MOST_LINKS:
                    raise Unsupported(f"`{path}` is a circle of symbolic links")
                place = "" if target.startswith("/") else place
                left += target.split("/")[::-1]
        return links, place or "/"


def _settled(shown: Iterable[Thing]) -> tuple[Thing, ...]:
    """Order things by place, the last of several at one, without those that are seen anyway."""
    settled: dict[str, Thing] = {}
    for thing in sorted(shown, key=lambda thing: (thing[1].count("/"), thing[1])):
        if not _is_seen(thing, settled):
            settled[thing[1]] = thing
    return tuple(settled.values())


def _is_seen(thing: Thing, settled: Mapping[str, Thing]) -> bool:
    kind, inside, source = thing
    place = _nearest(posixpath.dirname(inside), settled)
    if place is None or settled[place][0] not in BOUND:
        return False
    over, _, origin = settled[place]
    at = origin + inside[len(place) :]
    if kind == "link":
        return at == inside
    return at == source and (over == kind or (over, kind) == ("write", "read"))


def _nearest(path: str, places: Mapping[str, object]) -> str | None:
    """Give the place that `path` lies in, if it is any; the deepest of several."""
    while path not in places:
        if path in {"", "/"}:
            return None
        path = path.rpartition("/")[0] or "/"
    return path
