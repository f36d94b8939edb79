"""A scaling study over ranks in Slurm jobs whose notebook is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from sml_kernel import records, scaling

NOTEBOOK = """
import sys
import sml_kernel as sml
from sml_kernel import scaling, tracking

site, folder = sys.argv[1:]
workers = sml.launch(site, gpus=4, nodes=2, walltime="00:10:00", account="m1234_g", qos="regular")
with workers:
    workers.wait(4, timeout_s=120)
    events = tracking.simulate(8, seed=1, process="gun", progress=False)
    graphs = tracking.build_graphs(events)
    small = {"batch": 4, "steps": 3, "warm_up": 1, "hidden": 8, "iterations": 2}
    measure = tracking.step_benchmark(graphs, **small, workers=workers, folder=f"{folder}-graphs")
    scaling.study(measure, ranks=[1, 2, 4], repeats=1, folder=folder, progress=False)
"""


def test_no_point_is_lost_and_none_is_measured_twice(slurm_mini, tmp_path) -> None:
    script, folder = tmp_path / "notebook.py", tmp_path / "study"
    script.write_text(NOTEBOOK)
    command = [sys.executable, str(script), slurm_mini, str(folder)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def ended():
        return records.Run(folder).rows("point") if (folder / "run.json").exists() else ()

    with subprocess.Popen(command, cwd=tmp_path, env=environment) as killed:
        begin = time.monotonic()
        while not len(ended()):
            assert killed.poll() is None, "it ended before its first point"
            assert time.monotonic() - begin < 240
            time.sleep(0.05)
        time.sleep(0.5)  # into the second point
        killed.send_signal(signal.SIGKILL)
    before = scaling.open_study(folder)
    done = before.points()[before.points().status == "done"].attempt.tolist()
    assert 1 <= len(done) < 3, "the study must be cut in the middle"
    assert before.run.status() == "lost"

    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    after = scaling.open_study(folder)
    points, rows = after.points(), after.run.rows("point")
    assert points.status.tolist() == ["done"] * 3
    assert len(rows) == 3, "a point was measured twice"
    assert set(done) <= set(points.attempt), "what was done before the kill was measured again"
    assert len(after.steps()) == (1 + 2 + 4) * 3
    assert set(after.ranks().groupby("ranks").host.nunique().to_dict()) == {1, 2, 4}
