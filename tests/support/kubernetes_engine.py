"""A Kubernetes of one node on loopback for tests, with a registry and an image for its pods.

All of it runs in a private folder; the node has mounts and processes of its own that nobody else
sees. Processes of tests share it, and the last one ends it. To find it running each time, start it
by hand with `python tests/support/kubernetes_engine.py up`; `down` leaves nothing of it behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import urllib.request

import pytest

try:
    from support import docker_engine as hub
    from support.slurm_engine import free_ports
except ImportError:  # called by hand
    sys.path[:0] = [str(pathlib.Path(__file__).parents[level]) for level in (1, 2)]
    from support import docker_engine as hub
    from support.slurm_engine import free_ports

from repro.images import archive, pushing
from repro.images.archive import Base, Part
from repro.images.registry import Registry
from repro.lockfiles.references import parse

Missing = hub.Missing
HOME = pathlib.Path(tempfile.gettempdir()) / f"repro-kubernetes-{os.getuid()}"
BUILDER = pathlib.Path(__file__).parents[2] / ".ci" / "kubernetes"
COMMAND = "sudo .ci/kubernetes build"
PROGRAMS = ("containerd", "docker-registry", "etcd", "ip", "nsenter", "openssl", "runc", "unshare")
PLUGINS = "/usr/lib/cni"
NODE = "127.0.0.1"  # the servers reach a node by its name, if that is an address
BRIDGE = "repro-kube0"
NETWORK = "10.222.0.0/24"
GATEWAY = "10.222.0.1"
"""This machine, as pods with a network of their own see it."""
CGROUP = HOME.name
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMES = "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc"
ROLES = {
    "admin": ("admin", "system:masters"),
    "limited": ("limited", "nobodies"),
    "node": (f"system:node:{NODE}", "system:nodes"),
    "manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
}
# what a kubelet sets for the whole machine
TUNED = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
TUNED += ("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")
# where containers and kubelets write, whatever they are told
HIDDEN = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet")
HIDDEN += ("/var/log/containers", "/var/log/pods")
UNUSED = {"__phello__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests"}
UNUSED |= {"dist-packages", "site-packages", "tkinter", "turtledemo"}
# The first process of the node: it takes in orphans, and all others end with it.
FIRST = """
cd "$1"
shift
for place; do
    mkdir -p "hidden$place"
    mount --bind "hidden$place" "$place"
done
containerd --config containerd.toml &
wait $!
"""
CONTAINERD = """\
version = 2
root = "{root}/containerd"
state = "{root}/hidden/run/containerd/state"
[grpc]
address = "{root}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
max_concurrent_downloads = 8
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{root}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


class Cluster:
    """A running Kubernetes.

    `kubeconfig` has the contexts `admin`, the current one, and `limited`, who may do nothing.
    `image` is the name of the base image by digest: bash, busybox as everything else, and this
    Python as `python3`. Pods with `hostNetwork` reach 127.0.0.1, those without reach `GATEWAY`.
    """

    def __init__(self, root, programs):
        self.root = pathlib.Path(root)
        self.programs = programs
        self.kubeconfig = str(self.root / "admin.json")
        self.environ = {"KUBECONFIG": self.kubeconfig}

    @property
    def registry(self):
        """Give the address of the registry; it wants no TLS."""
        return (self.root / "registry.address").read_text()

    @property
    def image(self):
        return (self.root / "image").read_text()

    @property
    def server(self):
        """Give the URL of the API."""
        return f"https://127.0.0.1:{self._ports['api']}"

    @property
    def _ports(self):
        return json.loads((self.root / "ports").read_text())

    def token(self, role):
        """Give what `admin` and `limited` prove themselves with."""
        return (self.root / f"{role}.token").read_text()

    # -- using it

    def kubectl(self, *words, role="admin", check=True, stdin=None):
        """Call kubectl; give what it prints, errors too where they are not checked for."""
        done = subprocess.run(
            [f"{self.programs}/kubectl", "--context", role, *words],
            env={"PATH": PATH, "HOME": str(self.root), **self.environ},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if check else subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0 or not check, (words, done.stdout, done.stderr)
        return done.stdout

    def create(self, document, role="admin"):
        """Create an object, given as Python has it."""
        self.kubectl("create", "-f", "-", role=role, stdin=json.dumps(document))

    def push(self, repository, layers, settings=None):
        """Put an image of tar files into the registry; give its name by digest."""
        parts = []
        for path in map(pathlib.Path, layers):
            data = path.read_bytes()
            named = f"sha256:{hub._digest(data)}"
            parts.append(Part(digest=named, path=str(path), size=len(data)))
        settings = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], **(settings or {})}
        written = archive.image(Base(id="", platform=hub.WORD, layers=()), parts, settings)
        name = f"{self.registry}/{repository}"
        with Registry(self.registry, {}) as registry:
            pin = pushing.push(registry, parse(f"{name}:1"), written, str(self.root), None)
        return f"{name}@{pin}"

    # -- breaking it

    def stop_apiserver(self):
        """End the API as a crash would."""
        self._end("apiserver")

    def start_apiserver(self):
        self._api()
        self.until(self.answers)

    def restart_apiserver(self):
        self.stop_apiserver()
        self.start_apiserver()

    def stop_kubelet(self):
        """Let nobody hear of the node any more; what runs there goes on."""
        self._end("kubelet")

    def start_kubelet(self):
        """Begin it again, and wait until the node has told of itself since."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._kubelet()
        self.until(lambda: self.ready(now))

    def lose_node(self):
        """Let the node vanish with all that runs on it, as if its power were cut."""
        self.stop_kubelet()
        self._end("node")

    def start_node(self):
        """Bring the node back; its pods are gone."""
        self._node()
        self.start_kubelet()

    # -- its state

    def answers(self):
        """Say whether the API is there."""
        request = urllib.request.Request(f"{self.server}/readyz")
        request.add_header("Authorization", f"Bearer {self.token('admin')}")
        secure = ssl.create_default_context(cafile=str(self.root / "ca.crt"))
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=secure))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ready(self, since=""):
        """Say whether the node takes pods, and has said so after `since`."""
        shown = self.kubectl("get", "node", NODE, "-o", "json", check=False)
        if not shown.startswith("{"):
            return False
        node = json.loads(shown)
        (said,) = [c for c in node["status"]["conditions"] if c["type"] == "Ready"]
        fit = said["status"] == "True" and not node["spec"].get("taints")
        return fit and said["lastHeartbeatTime"] > since

    def _has_account(self):
        """Say whether the account is there that pods run as."""
        form = "jsonpath={.secrets[0].name}"
        return self.kubectl("get", "sa", "default", "-o", form, check=False).startswith("default-")

    def until(self, is_so, seconds=120):
        """Wait, as long as everything that was started still runs."""
        end = time.monotonic() + seconds
        while not is_so():
            gone = [p.stem for p in self.root.glob("*.pid") if not _runs(p)]
            late = [f"{is_so.__name__} is not so"] if time.monotonic() > end else []
            assert not gone + late, "\n".join([*gone, *late, self.logs()])
            time.sleep(0.1)

    def logs(self):
        """Give the last lines of everybody."""
        found = sorted(self.root.glob("*.log"))
        return "\n".join(f"-- {p.stem}\n{p.read_text(errors='replace')[-1500:]}" for p in found)

    # -- starting and ending it

    def start(self):
        names = ("api", "etcd", "peer", "kubelet")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        (self.root / "ports").write_text(json.dumps(ports))
        self._credentials()
        self._etcd()
        self._api()
        self._registry()
        self._images()
        _tune(self.root / "sysctl")
        _network("add")
        self._node()
        self.until(self.answers)
        self._controllers()
        self._kubelet()
        self.until(self.ready)
        self.until(self._has_account)

    def stop(self):
        """End everything, and leave the machine as it was."""
        names = ("kubelet", "node", "manager", "scheduler", "apiserver", "etcd", "registry")
        for name in names:
            self._end(name)
        _network("del")
        _untune(self.root / "sysctl")
        _ungroup()
        for place in HIDDEN:
            with contextlib.suppress(OSError):
                os.rmdir(place)  # unless others use it, too

    def _run(self, name, *argv):
        """Start what outlives the tests; when this returns, it is what runs."""
        path = f"{self.programs}:{PATH}"
        appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        number = os.posix_spawn(
            shutil.which(argv[0], path=path),
            argv,
            {"PATH": path, "HOME": str(self.root)},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{self.root}/{name}.log", appended, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
        (self.root / f"{name}.pid").write_text(_identity(number))

    def _end(self, name):
        """End a process and its children, and wait until they are gone."""
        file = self.root / f"{name}.pid"
        if _runs(file):
            number = _number(file)
            family = [_identity(n) for n in (number, *_children(number))]
            os.killpg(number, signal.SIGKILL)
            end = time.monotonic() + 30
            while any(_lives(member) for member in family):
                assert time.monotonic() < end, f"{name} does not end"
                time.sleep(0.02)
        file.unlink(missing_ok=True)

    # -- its parts

    def _credentials(self):
        ca = ("-CA", "ca.crt", "-CAkey", "ca.key")
        self._certificate("ca", "/CN=repro")
        self._certificate("api", "/CN=api", *ca, "-addext", f"subjectAltName={NAMES}")
        self._certificate("caller", "/CN=caller", *ca)
        self._call("openssl", "genrsa", "-out", "accounts.key", "2048")
        lines = []
        for role, (user, group) in ROLES.items():
            token = secrets.token_hex(16)
            (self.root / f"{role}.token").write_text(token)
            lines.append(f'{token},{user},{role},"{group}"\n')
        (self.root / "tokens.csv").write_text("".join(lines))
        for role in ROLES:
            self._configuration(role, ("admin", "limited") if role == "admin" else (role,))

    def _certificate(self, name, subject, *words):
        argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-days", "3650"]
        argv += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", subject, *words]
        self._call(*argv, "-keyout", f"{name}.key", "-out", f"{name}.crt")

    def _call(self, *argv):
        done = subprocess.run(
            argv, cwd=self.root, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, (argv, done.stderr)

    def _configuration(self, file, roles):
        """Write how the roles reach the API, the first one by itself."""
        cluster = {"server": self.server, "certificate-authority": str(self.root / "ca.crt")}
        users = [{"name": r, "user": {"token": self.token(r)}} for r in roles]
        contexts = [{"name": r, "context": {"cluster": "repro", "user": r}} for r in roles]
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "repro", "cluster": cluster}],
            "users": users,
            "contexts": contexts,
            "current-context": roles[0],
        }
        (self.root / f"{file}.json").write_text(json.dumps(document, indent=1))

    def _etcd(self):
        here = f"http://127.0.0.1:{self._ports['etcd']}"
        peer = f"http://127.0.0.1:{self._ports['peer']}"
        argv = ["etcd", "--name=repro", f"--data-dir={self.root}/etcd", "--log-level=error"]
        argv += [f"--listen-client-urls={here}", f"--advertise-client-urls={here}"]
        argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        self._run("etcd", *argv, f"--initial-cluster=repro={peer}")

    def _api(self):
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self._ports['etcd']}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self._ports["api"],
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.96.0.0/24",
            "authorization-mode": "Node,RBAC",
            "anonymous-auth": "false",
            "allow-privileged": "true",
            "token-auth-file": f"{self.root}/tokens.csv",
            "client-ca-file": f"{self.root}/ca.crt",
            "tls-cert-file": f"{self.root}/api.crt",
            "tls-private-key-file": f"{self.root}/api.key",
            "kubelet-client-certificate": f"{self.root}/caller.crt",
            "kubelet-client-key": f"{self.root}/caller.key",
            "service-account-issuer": "https://kubernetes",
            "service-account-key-file": f"{self.root}/accounts.key",
            "service-account-signing-key-file": f"{self.root}/accounts.key",
            "default-not-ready-toleration-seconds": 5,
            "default-unreachable-toleration-seconds": 5,
        }
        self._run("apiserver", "kube-apiserver", *_flags(flags))

    def _controllers(self):
        common = {"port": 0, "secure-port": 0, "leader-elect": "false"}
        common |= {"kube-api-qps": 100, "kube-api-burst": 200}
        flags = {
            **common,
            "kubeconfig": f"{self.root}/manager.json",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": f"{self.root}/accounts.key",
            "root-ca-file": f"{self.root}/ca.crt",
            "cluster-signing-cert-file": f"{self.root}/ca.crt",
            "cluster-signing-key-file": f"{self.root}/ca.key",
            "node-monitor-grace-period": "20s",
            "node-monitor-period": "2s",
        }
        self._run("manager", "kube-controller-manager", *_flags(flags))
        flags = {**common, "kubeconfig": f"{self.root}/scheduler.json"}
        self._run("scheduler", "kube-scheduler", *_flags(flags))

    def _registry(self):
        hub._registry(self.root)
        file = self.root / "registry.pid"
        file.write_text(_identity(_number(file)))

    def _images(self):
        """Fill the registry; it is where the node has all images from."""
        system, python = self.root / "system.tar", self.root / "python.tar"
        system.write_bytes(hub._layer())
        _python(python)
        pause = self.push("repro/pause", [system], {"Cmd": ["/bin/sleep", "2147483647"]})
        base = self.push("repro/base", [system, python], {"Cmd": ["/bin/bash"]})
        (self.root / "pause").write_text(pause)
        (self.root / "image").write_text(base)

    def _node(self):
        """Start containerd, in namespaces that go when it goes."""
        shutil.rmtree(self.root / "hidden", ignore_errors=True)
        for place in HIDDEN:
            os.makedirs(place, exist_ok=True)
        pause = (self.root / "pause").read_text()
        text = CONTAINERD.format(root=self.root, pause=pause, plugins=PLUGINS)
        (self.root / "containerd.toml").write_text(text)
        bridge = {"type": "bridge", "bridge": BRIDGE}
        bridge["ipam"] = {
            "type": "host-local",
            "dataDir": f"{self.root}/hidden/addresses",
            "ranges": [[{"subnet": NETWORK}]],
        }
        (self.root / "cni").mkdir(exist_ok=True)
        known = {"cniVersion": "0.4.0", "name": "repro", "plugins": [bridge]}
        (self.root / "cni" / "repro.conflist").write_text(json.dumps(known))
        (self.root / "containerd.sock").unlink(missing_ok=True)
        argv = ["unshare", "--mount", "--propagation=slave", "--pid", "--fork", "--kill-child"]
        argv += ["--mount-proc", "sh", "-e", "-c", FIRST, "sh", str(self.root), *HIDDEN]
        self._run("node", *argv)
        self.until((self.root / "containerd.sock").is_socket)

    def _kubelet(self):
        """Start it inside of the node."""
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self._ports["kubelet"],
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": f"{self.root}/ca.crt"},
            },
            "authorization": {"mode": "AlwaysAllow"},  # to whom has a certificate
            "cgroupRoot": f"/{CGROUP}",
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "nodeStatusUpdateFrequency": "5s",
            "nodeLeaseDurationSeconds": 20,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "volumePluginDir": f"{self.root}/plugins",
        }
        (self.root / "kubelet.json").write_text(json.dumps(settings, indent=1))
        _group()
        flags = {
            "config": f"{self.root}/kubelet.json",
            "kubeconfig": f"{self.root}/node.json",
            "root-dir": f"{self.root}/kubelet",
            "cert-dir": f"{self.root}/kubelet/pki",
            "hostname-override": NODE,
            "container-runtime": "remote",
            "container-runtime-endpoint": f"unix://{self.root}/containerd.sock",
        }
        (first,) = _children(_number(self.root / "node.pid"))
        argv = ["nsenter", f"--target={first}", "--mount", "--pid", "kubelet", *_flags(flags)]
        self._run("kubelet", *argv)


def _flags(flags):
    return [f"--{name}={value}" for name, value in flags.items()]


def _identity(number):
    """Give the number of a process and when it began, nothing where it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "XZ" else f"{number} {fields[19]}"


def _lives(identity):
    return bool(identity) and _identity(identity.split()[0]) == identity


def _runs(file):
    """Say whether the process that a file names runs."""
    return file.exists() and _lives(file.read_text())


def _number(file):
    return int(file.read_text().split()[0])


def _children(number):
    text = pathlib.Path(f"/proc/{number}/task/{number}/children").read_text()
    return [int(word) for word in text.split()]


# --- what the machine is asked for ---------------------------------------------------------


def _tune(kept):
    """Note what a kubelet is about to change."""
    values = {name: pathlib.Path("/proc/sys", name).read_text() for name in TUNED}
    kept.write_text(json.dumps(values))


def _untune(kept):
    if kept.exists():
        for name, value in json.loads(kept.read_text()).items():
            pathlib.Path("/proc/sys", name).write_text(value)


def _network(word):
    """Make, or remove, what pods are plugged into. Nothing is routed to or from it."""
    add = [["link", "add", BRIDGE, "type", "bridge"], ["link", "set", BRIDGE, "up"]]
    add += [["addr", "add", f"{GATEWAY}/24", "dev", BRIDGE]]
    for words in add if word == "add" else [["link", "del", BRIDGE]]:
        subprocess.run(["ip", *words], capture_output=True, check=word == "add")


def _groups():
    """Give the control groups of the pods: one in each tree that the kernel has."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    return [pathlib.Path(m[1], CGROUP) for m in mounts if m[2] in ("cgroup", "cgroup2")]


def _group():
    for place in _groups():
        place.mkdir(exist_ok=True)


def _ungroup():
    end = time.monotonic() + 30
    while any(place.exists() for place in _groups()):
        for place in _groups():
            for folder, _, _ in os.walk(place, topdown=False):
                with contextlib.suppress(OSError):  # what was killed may take its time to go
                    os.rmdir(folder)
        assert time.monotonic() < end, "control groups do not go away"


def _python(path):
    """Write this Python and its own modules, as they would be installed in /usr/local."""
    library = sysconfig.get_path("stdlib")
    inside = f"usr/local/lib/{os.path.basename(library)}"
    modules = [str(p) for p in pathlib.Path(library, "lib-dynload").glob("*.so")]
    program = os.path.realpath(sys.executable)
    done = subprocess.run(["ldd", program, *modules], capture_output=True, text=True, check=False)
    words = [line.partition("=>")[2].split("(")[0].strip() for line in done.stdout.splitlines()]
    libraries = {w for w in words if w.startswith("/")} - set(hub._libraries())
    with tarfile.open(path, "w") as tar:
        tar.add(library, inside, filter=_wanted)
        for source in sorted(libraries):
            is_hidden = not source.startswith(("/lib", "/usr/"))  # as in a home: not for everybody
            place = f"usr/lib/{os.path.basename(source)}" if is_hidden else source.lstrip("/")
            tar.add(os.path.realpath(source), place)
        tar.add(program, f"usr/local/bin/{os.path.basename(program)}")
        link = tarfile.TarInfo("usr/local/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, os.path.basename(program)
        tar.addfile(link)


def _wanted(member):
    name = os.path.basename(member.name)
    left_out = name in UNUSED or name.startswith("config-")
    left_out = left_out or name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc"))
    return None if left_out else member


# --- who uses it ---------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(home):
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _programs():
    """Find what was built. Raises Missing."""
    if os.getuid() != 0:
        msg = "only root can start a Kubernetes"
        raise Missing(msg)
    known = all(shutil.which(name, path=PATH) for name in PROGRAMS) and os.path.isdir(PLUGINS)
    if known and BUILDER.exists():
        done = subprocess.run([BUILDER, "where"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    msg = f"there is no Kubernetes; build one with: {COMMAND}"
    raise Missing(msg)


def _started(home):
    """Give the cluster, started now if there is none that answers."""
    cluster = Cluster(home / "cluster", _programs())
    if (home / "ready").exists() and _is_fit(cluster):
        return cluster
    _stopped(home)
    cluster.root.mkdir(mode=0o700)
    try:
        cluster.start()
    except BaseException:
        _stopped(home)
        raise
    (home / "ready").touch()
    return cluster


def _is_fit(cluster):
    """Say whether all of it works; others may just have stopped a part of it."""
    try:
        cluster.until(lambda: cluster.answers() and cluster.ready(), 60)
    except AssertionError:
        return False
    return True


def _stopped(home):
    (home / "ready").unlink(missing_ok=True)
    Cluster(home / "cluster", "").stop()
    shutil.rmtree(home / "cluster", ignore_errors=True)


def _is_used(users):
    """Say whether other processes than this use it; `users` is the file that each holds."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def running(home=HOME):
    """A cluster, ended by the last who uses it unless it was started by hand. Raises Missing."""
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "users").open("a") as users:
        with _locked(home):
            cluster = _started(home)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield cluster
        finally:
            with _locked(home):
                if not _is_used(users) and not (home / "by-hand").exists():
                    _stopped(home)


@pytest.fixture(scope="session")
def kubernetes_engine():
    """A Kubernetes of one node, for the whole session."""
    try:
        with running() as cluster:
            yield cluster
    except Missing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


def up(home=HOME):
    """Start it, to stay."""
    with _locked(home):
        _started(home)
        (home / "by-hand").touch()
    return status(home)


def down(home=HOME):
    """End it, whoever uses it."""
    with _locked(home):
        (home / "by-hand").unlink(missing_ok=True)
        _stopped(home)
    return "down"


def status(home=HOME):
    """Say what is needed to use it."""
    if not (home / "ready").exists():
        return "down"
    cluster = Cluster(home / "cluster", _programs())
    facts = {"answers": cluster.answers(), "ready": cluster.ready()}
    for name in ("kubeconfig", "server", "registry", "image", "programs"):
        facts[name] = getattr(cluster, name)
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


if __name__ == "__main__":
    try:
        told = {"up": up, "down": down, "status": status}[sys.argv[1]]()
        sys.stdout.write(f"{told}\n")
    except Missing as error:
        sys.exit(str(error))
