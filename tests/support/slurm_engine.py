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
MinJobAge={remembered}
MaxArraySize=1001
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
{accounting}
JobCompType=jobcomp/none
{nodes}
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=second Nodes=n2 MaxTime=INFINITE State=UP
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge.sock"""
ACCOUNTING_COMMAND = "sudo apt-get install -y --no-install-recommends slurmdbd mariadb-server"
DAEMON = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
LogFile={root}/log/slurmdbd
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""
TABLES = """\
create database slurm_acct_db;
create user slurm@'127.0.0.1' identified by 'slurm';
create user slurm@localhost identified by 'slurm';
grant all on slurm_acct_db.* to slurm@'127.0.0.1';
grant all on slurm_acct_db.* to slurm@localhost;
"""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"


class Missing(Exception):
    """What is needed is not on this machine."""


class Cluster:
    """A running Slurm, perhaps with accounting. `environ` makes its commands talk to it.

    `remembered` is for how many seconds the controller knows of a job that has ended.
    """

    def __init__(self, root, *, accounted=False, remembered=3600):
        self.root = pathlib.Path(root)
        self._accounted, self._remembered = accounted, remembered
        self._database = None
        self.conf = self.root / "slurm.conf"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "SLURM_CONF": str(self.conf),
        }

    def start(self):
        for name in ("state", "log", "spool-n1", "spool-n2"):
            (self.root / name).mkdir()
        ports = free_ports(5)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={socket.gethostname().partition('.')[0]} "
            f"NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=8000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:3], strict=True)
        )
        host = socket.gethostname().partition(".")[0]
        about = {"root": self.root, "host": host, "ctld": ports[0], "nodes": nodes}
        about["accounting"] = NO_ACCOUNTING
        if self._accounted:
            about["accounting"] = ACCOUNTING.format(root=self.root, port=ports[3])
        self.conf.write_text(CONFIG.format(remembered=self._remembered, **about))
        (self.root / "cgroup.conf").write_text(CGROUP)
        self._munge()
        if self._accounted:
            self._account(ports[3], ports[4])
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

    def _account(self, port, database):
        """Start a database, and the daemon that keeps the accounts in it."""
        place = self.root / "database"
        self.call(
            "mariadb-install-db",
            "--no-defaults",
            "--user=root",
            f"--datadir={place}",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
        )
        argv = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={place}"]
        argv += [f"--socket={self.root}/database.sock", "--bind-address=127.0.0.1"]
        argv += [f"--port={database}", f"--pid-file={self.root}/database.pid"]
        argv += ["--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        with (self.root / "log" / "database").open("wb") as log:
            self._database = subprocess.Popen(
                argv, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        client = ["mariadb", "--no-defaults", f"--socket={self.root}/database.sock", "-N", "-e"]
        self.until(lambda: "1" in self.call(*client, "select 1", check=False))
        self.call(*client, TABLES)
        daemon = self.root / "slurmdbd.conf"
        daemon.write_text(DAEMON.format(root=self.root, port=port, database=database))
        daemon.chmod(0o600)
        self.call("slurmdbd")
        listing = ("sacctmgr", "-n", "list", "cluster")
        self.until(lambda: not self._fails(*listing))
        if "repro" not in self.call(*listing):
            self.call("sacctmgr", "-i", "add", "cluster", "repro")

    def _fails(self, *argv):
        return subprocess.run(argv, env=self.environ, capture_output=True, check=False).returncode

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
        self.end("slurmdbd")
        self.end("munged")
        if self._database:
            self._database.terminate()
            self._database.wait()
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


def lacking(*, accounted=False):
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"there is no {missing[0]}; install Slurm with: {COMMAND}"
    if accounted and not (shutil.which("slurmdbd") and shutil.which("mariadbd")):
        return f"there is no accounting; install it with: {ACCOUNTING_COMMAND}"
    return "" if os.getuid() == 0 else "only root can start a Slurm"


@contextlib.contextmanager
def running(*, accounted=False, remembered=3600):
    """A Slurm of its own. Raises Missing."""
    problem = lacking(accounted=accounted)
    if problem:
        raise Missing(problem)
    root = tempfile.mkdtemp(prefix="repro-slurm-")
    cluster = Cluster(root, accounted=accounted, remembered=remembered)
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


@pytest.fixture(scope="session")
def slurm_accounts():
    """A Slurm with accounting, which forgets a job two seconds after its end."""
    problem = lacking(accounted=True)
    if problem and os.environ.get("CI") == "true":
        pytest.fail(problem)
    if problem:  # the database is large: nobody has to have it
        pytest.skip(problem)
    with running(accounted=True, remembered=2) as cluster:
        yield cluster
