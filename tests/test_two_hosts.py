"""Training on two hosts: network namespaces that a pair of virtual Ethernet devices joins."""

import json
import os
import subprocess
import sys

import pytest
from runs import ROOT, run_tool, write_config

ADDRESSES = ("10.231.7.1", "10.231.7.2")


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    """Returns the names of two namespaces, each with one end of a pair."""
    names = tuple(f"mbv2det{os.getpid()}{letter}" for letter in "ab")
    try:
        made = [ip("netns", "add", name) for name in names]
    except OSError:
        pytest.skip("there is no command `ip` to make network namespaces with")
    try:
        devices = tuple(f"v{os.getpid()}{letter}" for letter in "ab")
        made.append(ip("link", "add", devices[0], "type", "veth", "peer", "name", devices[1]))
        for name, device, address in zip(names, devices, ADDRESSES, strict=True):
            made.append(ip("link", "set", device, "netns", name))
            made.append(ip("-n", name, "addr", "add", f"{address}/24", "dev", device))
            made.append(ip("-n", name, "link", "set", device, "up"))
            made.append(ip("-n", name, "link", "set", "lo", "up"))
        refused = [done.stderr.strip() for done in made if done.returncode]
        if refused:
            pytest.skip(f"this machine may not join two network namespaces: {refused[0]}")
        yield dict(zip(names, devices, strict=True))
    finally:
        for name in names:
            ip("netns", "delete", name)


def launch(host, device, rank, config):
    """Starts torchrun within a host."""
    return subprocess.Popen(
        [
            "ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run",
            "--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1",
            f"--master_addr={ADDRESSES[0]}", "--master_port=29513",
            ROOT / "tools/train.py", config, "--trainer.num_nodes=2", "--trainer.devices=1",
            "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": device},
    )  # fmt: skip


@pytest.mark.slow
def test_two_hosts_train_one_model(hosts, tmp_path):
    config = write_config(tmp_path, num_train=16, num_val=5)
    started = [launch(*host, rank, config) for rank, host in enumerate(hosts.items())]
    outputs = [process.communicate(timeout=250)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output
    run = tmp_path / "runs/tiny/1"
    assert [path.name for path in run.parent.iterdir()] == ["1"]
    trained = json.loads((run / "metrics.json").read_text())
    out = tmp_path / "one.json"
    run_tool("eval", config, "--weights", run / "best.safetensors", "--out", out)
    measured = json.loads(out.read_text())
    for key in ("AP", "AP50", "images"):
        assert measured["detection"][key] == trained["detection"][key]
