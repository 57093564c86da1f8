"""Commands that are hard to end, run as `shapes.py SHAPE [leave]`: each prints `ready`.

All but the stopped end by themselves after a minute, so that little stays after a failing test.
With `leave` the command itself ends with code 0 at once, and its offspring stays.
"""

import ctypes
import os
import signal
import sys
import threading
import time

LIFE = 60
LEAVE = "leave" in sys.argv[2:]


def ready():
    os.write(1, b"ready\n")


def stay():
    if not LEAVE:
        time.sleep(LIFE)


def deaf():
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def child(*preparations):
    """Fork a process that does these one after the other, says so, and lives on."""
    if os.fork() == 0:
        for prepare in preparations:
            prepare()
        ready()
        time.sleep(LIFE)
        os._exit(0)


def between():
    """Fork, and let the middle process die."""
    if os.fork():
        os._exit(0)


def stop():
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)


def bash(text):
    os.execlp("bash", "bash", "-c", text)


def polite():
    ready()
    stay()


def ignores_term():
    deaf()
    child()
    stay()


def double_fork():
    child(between)
    stay()


def session_of_its_own():
    child(os.setsid)
    stay()


def daemon():
    child(os.setsid, between, deaf)
    stay()


def group_of_its_own():
    child(lambda: os.setpgid(0, 0), deaf)
    stay()


def threads_without_a_leader():
    """Look like a zombie: the first thread has ended, another lives on."""

    def leaderless():
        threading.Thread(target=time.sleep, args=(LIFE,)).start()
        ready()
        ctypes.CDLL(None).pthread_exit(None)

    child(os.setsid, deaf, leaderless)
    stay()


def stopped():
    child(os.setsid, stop)
    stay()


def stopped_and_deaf():
    child(os.setsid, between, deaf, stop)
    stay()


def chain():
    """Hop from process to process, each in a session of its own, faster than one can look."""
    if os.fork() == 0:
        deaf()
        for _ in range(20_000):
            if os.fork():
                os._exit(0)
            os.setsid()
            time.sleep(0.002)
        os._exit(0)
    ready()
    stay()


def storm():
    """Fork in all branches, up to 64 processes."""
    if os.fork() == 0:
        deaf()
        for level in range(6):
            if os.fork() == 0 and level % 2:
                os.setsid()
        time.sleep(LIFE)
        os._exit(0)
    ready()
    stay()


def holds_output():
    child(deaf)
    stay()


def nohup():
    bash("nohup sleep 60 & echo ready; " + ("" if LEAVE else "wait"))


def trap():
    child(lambda: bash(TRAP))
    stay()


TRAP = "trap '' TERM INT HUP QUIT; echo ready; for i in $(seq 600); do sleep 0.1; done"


def deaf_grandchild():
    child(lambda: child(deaf), lambda: time.sleep(0.2))
    stay()


def replaced():
    child(lambda: bash("echo ready; exec -a other sleep 60"))
    stay()


SHAPES = {
    shape.__name__: shape
    for shape in (
        polite,
        ignores_term,
        double_fork,
        session_of_its_own,
        daemon,
        group_of_its_own,
        threads_without_a_leader,
        stopped,
        stopped_and_deaf,
        chain,
        storm,
        holds_output,
        nohup,
        trap,
        deaf_grandchild,
        replaced,
    )
}

if __name__ == "__main__":
    SHAPES[sys.argv[1]]()
