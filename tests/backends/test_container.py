"""How a job and the caller's options become what the Docker API takes; no daemon is needed."""

import os

import pytest

from repro.backends import container, dockerargs
from repro.errors import UsageError
from repro.ports import Job
from repro.spec import Resources

# --- the caller's options, as the docker command reads them --------------------------------


def applied(*options, environ=None):
    config = {}
    dockerargs.apply(options, config, environ or {})
    return config


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("gpus", "all", {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}),
        ("gpus", "2", {"DeviceRequests": [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]}),
        ("gpus", '"device=0,GPU-1"', {"DeviceRequests": [{"Driver": "", "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["gpu"]]}]}),
        ("memory", "512m", {"Memory": 512 << 20}),
        ("m", "1.5gb", {"Memory": 3 << 29}),
        ("memory", "1000", {"Memory": 1000}),
        ("memory", "2GiB", {"Memory": 2 << 30}),
        ("memory-swap", "-1", {"MemorySwap": -1}),
        ("shm-size", "8G", {"ShmSize": 8 << 30}),
        ("cpus", "1.5", {"NanoCpus": 1_500_000_000}),
        ("c", "512", {"CpuShares": 512}),
        ("pids-limit", "-1", {"PidsLimit": -1}),
        ("network", "mine", {"NetworkMode": "mine"}),
        ("net", "none", {"NetworkMode": "none"}),
        ("ipc", "host", {"IpcMode": "host"}),
        ("privileged", None, {"Privileged": True}),
        ("privileged", "true", {"Privileged": True}),
        ("read-only", "false", {"ReadonlyRootfs": False}),
        ("cap-add", "SYS_PTRACE", {"CapAdd": ["SYS_PTRACE"]}),
        ("v", "name:/data:ro", {"Binds": ["name:/data:ro"]}),
        ("volume", "/etc:/x", {"Binds": ["/etc:/x"]}),
        ("tmpfs", "/run:size=1m", {"Tmpfs": {"/run": "size=1m"}}),
        ("sysctl", "net.x=1", {"Sysctls": {"net.x": "1"}}),
        ("device", "/dev/a", {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}]}),
        ("device", "/dev/a:/dev/b:r", {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]}),
        ("device", "/dev/a:rw", {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rw"}]}),
        ("ulimit", "nofile=64:128", {"Ulimits": [{"Name": "nofile", "Soft": 64, "Hard": 128}]}),
        ("ulimit", "memlock=-1", {"Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}]}),
        ("mount", "type=bind,src=/etc,dst=/x,readonly", {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x", "ReadOnly": True}]}),
        ("mount", "source=v,target=/x", {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/x", "ReadOnly": False}]}),
    ],
)  # fmt: skip
def test_options_of_the_engine_mean_what_they_mean_to_the_docker_command(name, value, expected):
    assert applied((name, value)) == {"HostConfig": expected}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("u", "1:2", {"User": "1:2"}),
        ("h", "box", {"Hostname": "box"}),
        ("entrypoint", "", {"Entrypoint": ""}),
        ("e", "A=b=c", {"Env": {"A": "b=c"}}),
        ("env", "A", {"Env": {"A": "from here"}}),
        ("label", "a=b", {"Labels": {"a": "b"}}),
        ("t", None, {}),
        ("rm", None, {}),
        ("init", None, {}),
    ],
)
def test_options_of_the_container_mean_what_they_mean_to_the_docker_command(name, value, expected):
    assert applied((name, value), environ={"A": "from here"}) == expected


def test_options_that_may_be_several_are_added_and_others_replaced():
    options = [
        ("v", "a:/a"),
        ("volume", "b:/b"),
        ("e", "A=1"),
        ("env", "B=2"),
        ("m", "1k"),
        ("memory", "2k"),
    ]
    assert applied(*options) == {
        "Env": {"A": "1", "B": "2"},
        "HostConfig": {"Binds": ["a:/a", "b:/b"], "Memory": 2048},
    }


def test_an_option_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(UsageError, match="`publish`") as caught:
        applied(("publish", "80:80"))
    assert "gpus" in caught.value.hints[0]
    assert "shm-size" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", "much"),
        ("memory", ""),
        ("memory", "1x"),
        ("memory", None),
        ("cpus", "two"),
        ("gpus", "driver=x,count=2"),
        ("gpus", "-1"),
        ("privileged", "very"),
        ("volume", "/etc"),
        ("volume", "/etc:etc"),
        ("volume", "/no/such:/x"),
        ("volume", "./here:/x"),
        ("env", "NOT_SET"),
        ("env", None),
        ("ulimit", "nofile=many"),
        ("mount", "type=bind,src=/etc"),
        ("mount", "type=bind,src=/etc,dst=/x,bind-propagation=shared"),
        ("pids-limit", "1.5"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(name, value):
    with pytest.raises(UsageError, match=f"`{name}="):
        applied((name, value))


def specified(**fields):
    base = {"run_id": "r", "argv": ("true",), "variables": {}, "folder": "/b/work", "base": "/b"}
    return container.specification(Job(**{**base, **fields}), "1:2", {})


def test_resources_become_limits_and_requests_and_the_callers_options_win():
    asked = Resources(cpus=2, memory=1 << 30, gpus=3)
    host = specified(resources=asked)["HostConfig"]
    assert (host["NanoCpus"], host["Memory"]) == (2_000_000_000, 1 << 30)
    assert host["DeviceRequests"] == [{"Driver": "", "Count": 3, "Capabilities": [["gpu"]]}]
    host = specified(resources=asked, container=(("memory", "1k"), ("gpus", "all")))["HostConfig"]
    assert host["Memory"] == 1024
    assert [one["Count"] for one in host["DeviceRequests"]] == [-1]


def test_without_resources_nothing_is_limited():
    assert not {"NanoCpus", "Memory", "DeviceRequests"} & specified()["HostConfig"].keys()


def test_paths_of_the_private_folder_are_those_inside_and_others_stay():
    made = specified(
        argv=("/b/work/x", "/bar", "--in=/b/work/a:/b/tmp/b"),
        variables={"HOME": "/b", "URI": "file:///b/tracking/x", "B": "/bb/c"},
    )
    assert made["Cmd"] == ["/repro/work/x", "/bar", "--in=/repro/work/a:/repro/tmp/b"]
    assert made["WorkingDir"] == "/repro/work"
    assert {"HOME=/repro", "URI=file:///repro/tracking/x", "B=/bb/c"} <= set(made["Env"])
    assert specified(base="")["WorkingDir"] == "/repro/work"
    assert [m["Source"] for m in specified(base="")["HostConfig"]["Mounts"]] == ["/b/work"]


def test_a_network_against_the_step_is_refused():
    with pytest.raises(UsageError, match="network: false"):
        specified(network=False, container=(("network", "host"),))
    assert specified(network=False, container=(("network", "none"),))


@pytest.mark.parametrize(
    "fields", [{"argv": ("\udcff",)}, {"variables": {"A": "\udcff"}}, {"argv": ("a\0b",)}]
)
def test_what_the_api_would_change_without_a_word_is_refused(fields):
    with pytest.raises(UsageError):
        specified(**fields)


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        ("http://127.0.0.1:5000", (5000,)),
        ("https://localhost:5001/x", (5001,)),
        ("http://127.0.0.1", ()),
        ("http://example.org:80", ()),
        ("http://127.0.0.1:99999", ()),
        ("127.0.0.1:5000", ()),
    ],
)
def test_ports_of_the_loopback_interface_are_found_in_urls(value, ports):
    assert container.loopback_ports({"A": value}) == ports


# --- whose it is ---------------------------------------------------------------------------


def test_a_process_of_before_is_not_taken_for_one_of_now():
    mine = container.owner(os.getpid())
    host, boot, pid, started = mine.split(" ")
    assert not container.is_orphan(mine)
    assert container.is_orphan(f"{host} {boot} {pid} 1")
    assert container.is_orphan(f"{host} earlier {pid} {started}")
    assert not container.is_orphan(f"elsewhere {boot} {pid} 1")
    assert not container.is_orphan("")
