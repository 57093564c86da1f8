"""Reads files in all ways that there are: `reads.py FOLDER`, where `files` lists them by way."""

import ctypes
import mmap
import os
import shutil
import socket
import subprocess
import sys
import threading

WAYS = {}


def way(function):
    WAYS[function.__name__] = function
    return function


@way
def opened(path):
    with open(path):
        pass


@way
def opened_to_update(path):
    with open(path, "r+"):
        pass


@way
def mapped(path):
    fd = os.open(path, os.O_RDONLY)
    mmap.mmap(fd, 1, prot=mmap.PROT_READ)


@way
def executed(path):
    subprocess.run([path], check=True)


@way
def interpreted(path):
    subprocess.run(["sh", path], check=True)


@way
def loaded(path):
    with open(path, "wb") as file:
        file.write(b"no library")
    try:
        ctypes.CDLL(path)
    except OSError:
        pass


@way
def looked_at(path):
    os.stat(path)


@way
def looked_at_itself(path):
    os.lstat(path)


@way
def found_to_be_there(path):
    os.access(path, os.R_OK)


@way
def asked_for_attributes(path):
    os.listxattr(path)


@way
def behind_a_symlink(path):
    os.symlink(path, path + "-link")
    with open(path + "-link"):
        pass


@way
def behind_a_hard_link(path):
    os.link(path, path + "-hard")
    with open(path + "-hard"):
        pass


@way
def by_a_child(path):
    pid = os.fork()
    if not pid:
        opened(path)
        os._exit(0)
    os.waitpid(pid, 0)


@way
def by_a_grandchild_in_another_folder(path):
    folder, name = os.path.split(path)
    subprocess.run(["sh", "-c", f"cd {folder} && (cat {name}) > /dev/null"], check=True)


@way
def by_a_thread(path):
    thread = threading.Thread(target=opened, args=(path,))
    thread.start()
    thread.join()


@way
def below_a_descriptor(path):
    folder, name = os.path.split(path)
    os.open(name, os.O_RDONLY, dir_fd=os.open(folder, os.O_RDONLY))


@way
def after_a_change_by_descriptor(path):
    folder, name = os.path.split(path)
    here = os.open(".", os.O_RDONLY)
    os.fchdir(os.open(folder, os.O_RDONLY))
    os.stat(name)
    opened(name)
    os.fchdir(here)


@way
def deleted_afterwards(path):
    opened(path)
    os.unlink(path)


@way
def copied(path):
    shutil.copyfile(path, "copy")


@way
def renamed(path):
    os.rename(path, path + "-renamed")


@way
def read_before_written(path):
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text)


@way
def listed(path):
    os.unlink(path)
    os.mkdir(path)
    os.listdir(path)


@way
def of_a_strange_name(path):
    os.rename(path, path + ' "x"\n\\é (deleted)')
    opened(path + ' "x"\n\\é (deleted)')


def talk(port):
    """Contact hosts in the ways that there are."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as ours:
                ours.connect((host, port))
        except OSError:
            pass
    with socket.socket(type=socket.SOCK_DGRAM) as ours:
        question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01"
        ours.sendto(question, ("127.0.0.2", port))
    with socket.socket(socket.AF_UNIX) as ours:
        try:
            ours.connect("/run/no-such-socket")
        except OSError:
            pass


def main(folder, port):
    for name, read in WAYS.items():
        read(os.path.join(folder, name))
    talk(int(port))
    with open("own", "w") as file:
        file.write("x")
    opened("own")


if __name__ == "__main__":
    main(*sys.argv[1:])
