"""A Slurm of two nodes on loopback for tests, in a private folder, gone when the tests end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
COMMAND = "sudo apt-get install -y --no-install-recommends slurm-wlm munge"
NODES = ("n1", "n2")
CONFIG = """\
ClusterName=repro
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld
SlurmdLogFile={root}/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
KillWait=5
MinJobAge=3600
MaxArraySize=1001
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
{nodes}
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=second Nodes=n2 MaxTime=INFINITE State=UP
"""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"


class Missing(Exception):
    """What is needed is not on this machine."""


class Cluster:
    """A running Slurm. `environ` makes its commands talk to it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.conf = self.root / "slurm.conf"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "SLURM_CONF": str(self.conf),
        }

    def start(self):
        for name in ("state", "log", "spool-n1", "spool-n2"):
            (self.root / name).mkdir()
        ports = free_ports(3)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={socket.gethostname().partition('.')[0]} "
            f"NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=8000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        )
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(CONFIG.format(root=self.root, host=host, ctld=ports[0], nodes=nodes))
        (self.root / "cgroup.conf").write_text(CGROUP)
        self._munge()
        self.start_controller()
        for name in NODES:
            self.start_node(name)

    def _munge(self):
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        argv = ["munged", "--force", f"--key-file={key}", f"--socket={self.root}/munge.sock"]
        argv += [f"--pid-file={self.root}/munged.pid", f"--log-file={self.root}/log/munged"]
        self.call(*argv, f"--seed-file={self.root}/munge.seed")

    def start_controller(self):
        self.call("slurmctld")
        self.until(lambda: "UP" in self.call("scontrol", "ping", check=False))

    def stop_controller(self):
        self.end("slurmctld")

    def start_node(self, name):
        self.call("slurmd", "-N", name)
        self.until(lambda: self.state(name) in ("IDLE", "MIXED", "ALLOCATED"))

    def lose_node(self, name):
        """Let a node vanish with all that runs on it, as if its power were cut."""
        daemon = int((self.root / f"slurmd-{name}.pid").read_text())
        ours = [pid for pid in processes() if has_variable(pid, f"SLURM_CONF={self.conf}")]
        jobs = [pid for pid in ours if has_variable(pid, f"SLURMD_NODENAME={name}")]
        keepers = {parent(pid) for pid in jobs} - set(jobs)  # they would tell of the end of a job
        for pid in (daemon, *(k for k in keepers if "slurmstepd" in command_line(k)), *jobs):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        (self.root / f"slurmd-{name}.pid").unlink()

    def state(self, name):
        shown = self.call("sinfo", "-h", "-N", "-n", name, "-o", "%T", check=False).split()
        return shown[0].upper() if shown else ""

    def call(self, *argv, check=True):
        done = subprocess.run(
            argv, env=self.environ, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0 or not check, (argv, done.stdout, done.stderr)
        return done.stdout

    def until(self, is_so, seconds=60):
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.05)

    def logs(self):
        return "\n".join(p.read_text()[-2000:] for p in (self.root / "log").iterdir())

    def end(self, *names):
        """End daemons, and wait until they are gone."""
        pids = []
        for name in names:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                pids.append(int((self.root / f"{name}.pid").read_text()))
                os.kill(pids[-1], signal.SIGTERM)
        end = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end:
            time.sleep(0.02)

    def stop(self):
        if (self.root / "slurmctld.pid").exists():
            self.call("scancel", "--user=root", check=False)
        self.end(*(f"slurmd-{name}" for name in NODES), "slurmctld")
        self.end("munged")
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def left(self):
        """Give what still runs of ours, children after their parents: jobs outlive daemons."""
        found = [pid for pid in processes() if has_variable(pid, f"SLURM_CONF={self.conf}")]
        found = [pid for pid in found if pid != os.getpid()]
        for pid in found:
            found += [p for p in processes() if parent(p) == pid and p not in found]
        return found


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def parent(pid):
    with contextlib.suppress(OSError):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return 0


def has_variable(pid, text):
    with contextlib.suppress(OSError):
        return text.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def free_ports(count):
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def lacking():
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"there is no {missing[0]}; install Slurm with: {COMMAND}"
    return "" if os.getuid() == 0 else "only root can start a Slurm"


@contextlib.contextmanager
def running():
    """A Slurm of its own. Raises Missing."""
    problem = lacking()
    if problem:
        raise Missing(problem)
    root = tempfile.mkdtemp(prefix="repro-slurm-")
    cluster = Cluster(root)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm_engine():
    """A Slurm with the nodes n1 and n2, for the whole session."""
    try:
        with running() as cluster:
            yield cluster
    except Missing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
