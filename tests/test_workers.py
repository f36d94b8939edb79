"""Workers of this machine, and what is decided before anything is sent anywhere."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

import sml_kernel as sml
from sml_kernel.workers import RequestError, slurm
from sml_kernel.workers.pinned import own_gpu
from sml_kernel.workers.request import Shape, request

MINI = sml.site("slurm-mini")


def visible():
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"qos": "debug", "walltime": "02:00:00"}, "debug allows 00:30:00, you asked for 02:00:00"),
        ({"qos": "shared", "gpus": 3}, "shared allows 2 GPUs a job, you asked for 3"),
        ({"qos": "shared", "cpus": 65}, "shared allows 64 CPUs a job, you asked for 65"),
        ({"qos": "shared", "gpus": 2, "nodes": 2}, "shared allows 1 node, you asked for 2"),
        ({"qos": "debug", "gpus": 24}, "debug allows 5 jobs at a time, you asked for 6"),
        ({"gpus": 8, "nodes": 1}, "slurm-mini allows 4 GPUs a node, you asked for 8"),
        ({"gpus": 4, "nodes": 4}, "slurm-mini allows 3 nodes of this type, you asked for 4"),
        ({"gpus": 3, "nodes": 2}, "3 workers do not divide among 2 nodes"),
        ({"gpus": 1, "account": "m1234"}, "end in _g, you gave m1234: try m1234_g"),
        ({"cpus": 4, "account": "m1_g"}, "asked for cpu nodes with m1_g: try m1$"),
        ({"gpus": 1, "cpus": 1}, "gpus or for cpus, not both"),
        ({"gpus": 0, "cpus": 0}, "both 0"),
        ({"gpus": -1}, "gpus=-1: ask for 0 or more"),
        ({"gpus": 1, "node_type": "cpu"}, "cpu has no GPUs, you asked for 1"),
        ({"node_type": "gpus"}, "no node type 'gpus'; known: gpu, gpu80, cpu"),
        ({"walltime": "30"}, "'30' is no wall time"),
        ({"walltime": 0}, "0 is no wall time"),
        ({"gpus": 1.5}, r"gpus=1\.5: give a whole number"),
        ({"gpus": "4"}, "gpus='4': give a whole number"),
        ({"gpus": 4, "nodes": 1.0}, r"nodes=1\.0: give a whole number"),
        ({"cpus": True}, "cpus=True: give a whole number"),
        ({"account": "m1\n#SBATCH --mem=1_g"}, r"account='m1\\n#SBATCH --mem=1_g' is no name"),
        ({"account": 1234}, "account=1234 is no name"),
        ({"qos": "debug --mem=1"}, "qos='debug --mem=1' is no name"),
    ],
)
def test_beyond_the_limits_is_refused_in_plain_words(asked, message):
    with pytest.raises(ValueError, match=message):
        request(MINI, **asked)


def test_what_is_left_open_gets_the_sites_defaults():
    asked = request(MINI)
    assert (asked.gpus, asked.node_type, asked.qos, asked.walltime_s) == (1, "gpu", "debug", 1800)
    assert request(MINI, cpus=2).node_type == "cpu"
    assert request(MINI, nodes=2).gpus == 8
    here = request(sml.site("laptop"), gpus=0)
    assert 1 <= here.cpus <= 4


@pytest.mark.parametrize("workers", range(1, 13))
def test_jobs_give_exactly_the_workers_asked_for_and_none_is_too_large(workers):
    shapes = request(MINI, gpus=workers, qos="regular").shapes(workers)
    assert sum(shape.workers for shape in shapes) == workers
    assert len(shapes) == -(-workers // 4)
    assert max(shape.per_node for shape in shapes) <= 4


def test_jobs_over_nodes_scale_by_whole_jobs():
    asked = request(MINI, gpus=4, nodes=2, qos="regular")
    assert asked.shapes(8) == [Shape(2, 2), Shape(2, 2)]
    with pytest.raises(
        RequestError, match="4 GPUs on 2 nodes, you asked for 6: ask for a multiple"
    ):
        asked.shapes(6)


def test_the_price_is_of_whole_nodes_or_of_shares_times_the_charge():
    asked = {"gpus": 2, "walltime": "01:00:00"}
    whole = request(sml.site("perlmutter"), **asked, qos="regular")
    assert whole.node_hours(Shape(1, 2), 1.0) == 1.0
    share = request(sml.site("perlmutter"), **asked, qos="shared")
    assert share.node_hours(Shape(1, 2), 1.0) == 0.5
    dear = request(sml.site("perlmutter"), **asked, qos="premium", account="m1_g")
    assert dear.price([Shape(1, 2)], retries=0) == (
        "1 job on 1 gpu node for 01:00:00 in premium: 2 node-hours (charge factor 2), account m1_g"
    )
    assert "2 node-hours, up to 8 if lost jobs are replaced (" in dear.price([Shape(1, 2)], 3)


def test_a_task_takes_the_gpu_of_its_place_on_the_node():
    task = {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "2,3", "SLURM_LOCALID": "1"}
    assert own_gpu(task) == "3"
    assert own_gpu({"SLURM_LOCALID": "1"}) is None
    with pytest.raises(RuntimeError, match="no GPU for task 1 of this node: Slurm shows 2"):
        own_gpu(task | {"CUDA_VISIBLE_DEVICES": "2"})


def test_the_queues_words_are_read_with_a_bar_in_the_comment():
    line = "17|sml-a|PENDING|QOSMaxJobsPerUserLimit|N/A|1||1-00:10:05|m_g|debug|sml-kernel /a|b"
    job = slurm._queued(line)
    assert (job.reason, job.expected_start, job.time_left_s) == (
        "QOSMaxJobsPerUserLimit", None, 87005,
    )  # fmt: skip
    assert job.comment == "sml-kernel /a|b"
    assert slurm._left_s("9:59") == 599
    assert slurm._left_s("INVALID") is None


def test_workers_of_this_machine_are_pinned_scaled_recorded_and_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with sml.launch("laptop", gpus=2, folder=tmp_path / "run") as workers:
        assert "2 GPUs asked for" in repr(workers)
        workers.wait(timeout_s=30)
        seen = workers.client.run(visible)
        assert sorted(gpu for _, gpu in seen.values()) == ["5", "7"]
        table = workers.jobs()
        assert list(table.state) == ["RUNNING", "RUNNING"]
        assert {int(one) for one in table.job_id} == {
            nanny.pid for nanny in workers.cluster.workers.values()
        }
        assert set(workers.logs()) == {"0", "1"}
        assert "2 connected" in repr(workers)
        assert "RUNNING" in workers._repr_html_()
        with pytest.raises(RequestError, match="laptop allows 2 GPUs, you asked for 3"):
            workers.scale(3)
        assert len(workers.jobs()) == 2
        workers.scale(1)
        assert len(workers.jobs()) == 1
        assert "1 GPUs asked for" in repr(workers)
        workers.wait(timeout_s=5)  # for what was last asked for
        with pytest.raises(TimeoutError, match="1 of 2 workers after"):
            workers.wait(2, timeout_s=0.2)
        assert workers.client.submit(pow, 2, 5).result(timeout=10) == 32
    for pid, _ in seen.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert workers.run.status() == "done"
    assert workers.run.rows("usage").node_hours.tolist() == [0.0]
    assert "closed" in repr(workers)
    workers.close()


def memory_limit(dask_worker):
    return dask_worker.memory_manager.memory_limit


def test_workers_of_this_machine_share_its_memory_however_many_they_are(tmp_path):
    with sml.launch("laptop", cpus=1, folder=tmp_path / "run") as workers:
        workers.wait(timeout_s=30)
        (whole,) = workers.client.run(memory_limit).values()
        workers.scale(2)
        workers.wait(timeout_s=30)
        nannies = [one.memory_manager.memory_limit for one in workers.cluster.workers.values()]
        assert [*workers.client.run(memory_limit).values(), *nannies] == [whole // 2] * 4
        assert max(workers.client.run(page_faults).values()) < 10_000


def page_faults():
    """Of 100 arrays of 4 MB, one after another; 100,000 where each is mapped anew."""
    import resource

    import numpy as np

    np.ones(1 << 20, np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 20, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_another_user_of_this_machine_cannot_run_code_on_its_workers(tmp_path):
    """Who has no key can reach loopback, but neither the scheduler nor a worker."""
    with sml.launch("laptop", cpus=1, folder=tmp_path / "run") as workers:
        workers.wait(timeout_s=30)
        addresses = [workers.cluster.scheduler.address, *workers.client.run(visible)]
        for address in map(urlsplit, addresses):
            assert address.scheme == "tls"
            nobody = ssl.create_default_context()
            nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
            with (
                pytest.raises((ssl.SSLError, ConnectionResetError)),
                socket.create_connection((address.hostname, address.port), timeout=10) as plain,
                nobody.wrap_socket(plain) as encrypted,
            ):
                encrypted.recv(1)  # in TLS 1.3 a client learns only now that it was refused


def test_what_closes_badly_is_closed_all_the_same(tmp_path, monkeypatch):
    workers = sml.launch("laptop", cpus=1, folder=tmp_path / "run")
    workers.wait(timeout_s=30)
    ((pid, _),) = workers.client.run(visible).values()
    client = workers.client

    def fail():
        raise OSError("the connection is gone")

    with monkeypatch.context() as broken:
        broken.setattr(client, "close", fail)
        with pytest.raises(OSError, match="the connection is gone"):
            workers.close()
    client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert workers.run.status() == "failed"


def test_more_gpus_than_this_machine_has_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(RequestError, match="laptop has no GPUs, you asked for 1: ask for cpus"):
        sml.launch("laptop", gpus=1, folder=tmp_path / "run")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(RequestError, match="laptop allows 1 GPU, you asked for 2"):
        sml.launch("laptop", gpus=2, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_error_inside_with_closes_and_is_in_the_record(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        sml.launch("laptop", cpus=1, folder=tmp_path / "run") as workers,
    ):
        _ = 1 / 0
    assert workers.run.status() == "failed"


def test_without_slurm_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmError, match="squeue is not on this machine's PATH"):
        slurm.queue()


def test_importing_workers_is_free():
    modules = ", ".join(
        f"sml_kernel.workers.{name}"
        for name in ("request", "script", "slurm", "watchdog", "leftovers", "pinned")
    )
    heavy = ("pandas", "dask", "distributed", "torch")
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


IMPORTED = """
import signal, threading
before = signal.getsignal(signal.SIGINT)
from sml_kernel.workers import jobqueue
assert signal.getsignal(signal.SIGINT) is before
"""
IN_A_THREAD = """
import threading
failed = []
threading.excepthook = failed.append
def load():
    from sml_kernel.workers import jobset
thread = threading.Thread(target=load)
thread.start()
thread.join()
assert not failed, failed
"""


@pytest.mark.parametrize("code", [IMPORTED, IN_A_THREAD])
def test_dask_jobqueue_leaves_ctrl_c_alone_and_loads_in_a_thread(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_waiting_for_more_than_was_asked_for_says_so(tmp_path):
    with sml.launch("laptop", cpus=1, folder=tmp_path / "run") as workers:
        workers.wait(1, timeout_s=30)
        with pytest.raises(sml.workers.WorkersError, match="2 workers never come: 1 were asked"):
            workers.wait(2)
