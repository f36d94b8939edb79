"""Records: appended by many, read by anybody, whole after a kill."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from sml_kernel import records


@pytest.fixture
def run(tmp_path: Path) -> records.Run:
    return records.start(tmp_path / "run", kind="test", parameters={"lr": 0.1}, seed=3)


def test_a_run_tells_how_it_was_made(run: records.Run) -> None:
    seen = run.provenance()
    assert (seen["kind"], seen["parameters"], seen["seed"]) == ("test", {"lr": 0.1}, 3)
    assert seen["versions"]["torch"].startswith("2.13.0")
    assert seen["machine"]["cores"] >= 1
    assert seen["machine"]["cpu"]
    assert any(line.startswith("numpy==") for line in (run.folder / "environment.txt").open())
    assert run.status() == "running"
    run.finish("done")
    assert run.status() == "done"
    assert run.provenance()["end"] >= seen["start"]


def test_rows_come_back_with_their_types(run: records.Run) -> None:
    with run.writer() as writer:
        writer.append("step", loss=np.float32(0.5), step=np.int64(1), parts=[1, 2], name="a")
        writer.append("epoch", loss=0.25)
    rows = run.rows()
    assert rows.kind.tolist() == ["step", "epoch"]
    assert rows.parts[0] == [1, 2]
    assert run.rows("epoch").loss.tolist() == [0.25]


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_a_number_that_is_none_has_its_reason(run: records.Run, value: float) -> None:
    with run.writer() as writer:
        writer.append("step", loss=value)
    row = run.rows().iloc[0]
    assert row.loss is None or math.isnan(row.loss)
    assert row.loss_reason == str(float(value))


def test_torn_last_line_is_passed_over_and_any_other_is_damage(run: records.Run) -> None:
    with run.writer() as writer:
        for step in range(3):
            writer.append("step", step=step)
    whole = writer.path.read_bytes()
    for cut in range(1, 20):
        writer.path.write_bytes(whole[:-cut])
        assert run.rows().step.tolist() == [0, 1]
    lines = whole.splitlines(keepends=True)
    writer.path.write_bytes(lines[0][:9] + b"\n" + lines[1])
    with pytest.raises(records.RecordError, match=rf"{writer.path.name}, line 1"):
        run.rows()


WRITE = """
import sys
from sml_kernel import records
with records.Run(sys.argv[1]).writer("w" + sys.argv[2]) as writer:
    for k in range(300):
        writer.append("row", k=k, text="x" * 2000)
"""


def test_many_writers_lose_nothing(run: records.Run) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(run.folder), str(name)])
        for name in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    counts = run.rows().groupby("writer").k.nunique()
    assert counts.to_dict() == {"w0": 300, "w1": 300, "w2": 300, "w3": 300}


KILLED = """
import os, signal, sys
from sml_kernel import records
run = records.start(sys.argv[1], kind="test", parameters={})
run.writer().append("row", k=1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_seen_to_be_lost(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "run")])
    assert ended.returncode == -signal.SIGKILL
    run = records.Run(tmp_path / "run")
    assert run.status() == "lost"
    assert run.rows().k.tolist() == [1]


def test_a_moved_folder_reads_the_same(run: records.Run, tmp_path: Path) -> None:
    with run.writer() as writer:
        writer.append("row", k=1)
    before = run.rows()
    shutil.move(run.folder, tmp_path / "elsewhere")
    assert records.read(tmp_path / "elsewhere").equals(before)
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "run.json").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a second Unix user")
def test_a_second_user_reads_without_write_access() -> None:
    import pandas  # noqa: F401  imported before the process gives its rights away

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        run = records.start(folder / "run", kind="test", parameters={})
        with run.writer() as writer:
            writer.append("row", k=1)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            os._exit(0 if run.rows().k.tolist() == [1] and run.status() == "running" else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_used_folder_is_refused(run: records.Run) -> None:
    with pytest.raises(records.RecordError, match="not empty"):
        records.start(run.folder, kind="test", parameters={})
    with pytest.raises(records.RecordError, match="not a run folder"):
        records.read(run.folder / "rows")
    with pytest.raises(records.RecordError, match="known: done, failed"):
        run.finish("finished")
    (run.folder / "run.json").write_text('{"kind": ')
    with pytest.raises(records.RecordError, match=r"run\.json, line 1"):
        run.provenance()


def test_summaries_have_errors(run: records.Run) -> None:
    with run.writer() as writer:
        for ranks, seconds in ((1, 8.0), (1, 10.0), (1, 12.0), (2, 5.0)):
            writer.append("point", ranks=ranks, seconds=seconds)
    table = records.summarise(run.rows(), by="ranks", value="seconds").set_index("ranks")
    assert table.loc[1, "mean"] == 10.0
    assert table.loc[1, "error"] == pytest.approx(2 / math.sqrt(3))
    assert math.isnan(table.loc[2, "error"])


def test_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    files = [tmp_path / "a", tmp_path / "b"]
    first = records.hash_files(files)
    assert first == records.hash_files(files[::-1])
    (tmp_path / "b").write_text("3")
    assert records.hash_files(files) != first


def test_run_json_is_plain_json(run: records.Run) -> None:
    assert json.loads((run.folder / "run.json").read_text())["status"] == "running"


def test_rows_hold_only_what_json_can_and_keep_their_own_fields(run: records.Run) -> None:
    with run.writer() as writer:
        writer.append("row", parts=[1.0, math.nan], table={"a": np.array([math.inf, 2.0])})
        for values in ({"time": 1.0}, {"writer": "me"}, {"thing": object()}):
            with pytest.raises(records.RecordError):
                writer.append("row", **values)
    (row,) = run.rows().itertuples()
    assert row.parts == [1.0, None]
    assert row.table == {"a": [None, 2.0]}


def test_impossible_parameters_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(records.RecordError, match="cannot hold"):
        records.start(tmp_path / "run", kind="test", parameters={"a": object()})
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(records.RecordError, match="is a file"):
        records.start(tmp_path / "file", kind="test", parameters={})
    run = records.start(tmp_path / "run", kind="test", parameters={"a": math.nan})
    assert run.provenance()["parameters"] == {"a": None}


@pytest.mark.parametrize("damage", [b"5\n", b"\xff\n", b"{}\n"])
def test_foreign_lines_are_damage(run: records.Run, damage: bytes) -> None:
    with run.writer() as writer:
        writer.append("row")
    writer.path.write_bytes(writer.path.read_bytes() + damage)
    with pytest.raises(records.RecordError, match="line 2: damaged row"):
        run.rows()


def test_a_tail_gives_each_row_once_and_no_torn_one(run: records.Run) -> None:
    tail = run.tail("main")
    assert tail.new() == []
    with run.writer() as writer, run.writer("other") as other:
        writer.append("row", k=1)
        other.append("row", k=100)
        assert [row["k"] for row in tail.new()] == [1]
        assert tail.new() == []
        with writer.path.open("ab") as stream:
            stream.write(b'{"kind": "row", "time": 1.0, "writer"')
        assert tail.new() == []
        with writer.path.open("ab") as stream:
            stream.write(b': "main", "k": 2}\n')
        writer.append("row", k=3)
        assert sorted(row["k"] for row in tail.new()) == [2, 3]


NOTE = """
import sys
from sml_kernel import records
for k in range(40):
    records.Run(sys.argv[1]).note(**{f"{sys.argv[2]}_{k}": k})
"""


def test_notes_of_many_processes_are_all_kept(run: records.Run) -> None:
    names = ("a", "b", "c")
    command = [sys.executable, "-c", NOTE, str(run.folder)]
    writers = [subprocess.Popen([*command, name]) for name in names]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = run.provenance()
    assert all(found[f"{name}_{k}"] == k for name in names for k in range(40))


def test_a_note_does_not_wait_for_a_lock_on_the_folder(run: records.Run) -> None:
    descriptor = os.open(run.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        run.finish("done")
    finally:
        os.close(descriptor)
    assert run.status() == "done"


def test_a_folder_is_held_by_one_until_it_is_released(tmp_path: Path) -> None:
    hold = records.Hold(tmp_path)
    with pytest.raises(records.HeldError, match="another process holds"):
        records.Hold(tmp_path)
    hold.release()
    records.Hold(tmp_path).release()
    hold.release()  # again is harmless


def test_a_run_that_goes_on_keeps_a_record_of_each_time(run: records.Run) -> None:
    run.finish("failed", error="a rank was killed")
    own = run.go_on({"lr": 0.1})
    assert own.folder == run.folder / "sessions" / "0001"
    assert own.provenance()["kind"] == "test-session"
    assert run.status() == "running"
    assert (run.provenance()["error"], run.provenance()["end"]) == ("", None)
    assert run.go_on({}).folder.name == "0002"
