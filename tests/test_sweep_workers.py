"""Jobs done by processes and by a cluster: none is lost, none is handed back twice, whatever dies on the way."""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from unscan.compiler.errors import InvalidInput
from unscan.sweep_workers import Cluster, Processes


def note(log, word):
    """Write a line that other processes do not tear."""
    with Path(log).open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


def noted(log, word):
    """Return how often each process wrote a word."""
    lines = [line.split() for line in Path(log).read_text().splitlines()]
    return Counter(pid for said, pid in lines if said == word)


def work(log, number):
    """Take a moment."""
    time.sleep(0.1)
    note(log, f"did-{number}")
    return {"status": "done", "number": number, "threads": os.environ.get("OMP_NUM_THREADS")}


def die(log, number):
    """Kill the process that does it."""
    note(log, f"died-{number}")
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(log, number):
    """Kill the process that does it, but the first time alone."""
    if not noted(log, f"died-{number}"):
        die(log, number)
    return work(log, number)


def forever(log):
    """Never come to an end."""
    note(log, "began")
    while True:
        time.sleep(60)


def outcomes(pool, count):
    """Return what comes of jobs, each by its key, which comes once."""
    found = {}
    for _ in range(count):
        key, outcome = pool.next()
        assert key not in found
        found[key] = outcome
    return found


def test_processes_do_every_job_once_in_one_thread_each(tmp_path):
    log = tmp_path / "log"
    with Processes(2) as pool:
        for number in range(6):
            pool.submit(f"job-{number}", work, log, number)
        found = outcomes(pool, 6)
    assert found == {f"job-{n}": {"status": "done", "number": n, "threads": "1"} for n in range(6)}
    assert [noted(log, f"did-{n}").total() for n in range(6)] == [1] * 6
    assert len({pid for n in range(6) for pid in noted(log, f"did-{n}")}) == 2


def test_a_process_that_dies_fails_its_own_job_alone(tmp_path):
    log = tmp_path / "log"
    log.touch()
    with Processes(2) as pool:
        for number in range(5):
            pool.submit(f"job-{number}", die if number == 1 else work, log, number)
        found = outcomes(pool, 5)
    assert {key for key, outcome in found.items() if outcome["status"] == "failed"} == {"job-1"}
    assert "ended with code -9" in found["job-1"]["error"]
    assert noted(log, "died-1").total() == 1


def test_what_still_runs_at_the_end_is_stopped(tmp_path):
    log = tmp_path / "log"
    with suppress(KeyboardInterrupt), Processes(1) as pool:
        pool.submit("job", forever, log)
        while not log.exists() or not noted(log, "began"):
            time.sleep(0.01)
        raise KeyboardInterrupt
    (pid,) = noted(log, "began")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread behind a scheduler."""
    distributed = pytest.importorskip("distributed")
    started = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    )
    yield started
    started.close()


def test_a_worker_of_a_cluster_that_is_killed_loses_nothing_and_repeats_nothing(cluster, tmp_path):
    log = tmp_path / "log"
    log.touch()
    with Cluster(cluster.scheduler_address) as pool:
        for number in range(12):
            pool.submit(f"job-{number}", die_once if number == 5 else work, log, number)
        found = outcomes(pool, 12)
    assert {key: outcome["number"] for key, outcome in found.items()} == {f"job-{n}": n for n in range(12)}
    assert noted(log, "died-5").total() == 1
    assert [noted(log, f"did-{n}").total() for n in range(12)] == [1] * 12


@pytest.mark.slow
def test_a_cluster_gives_a_job_up_that_kills_every_worker(cluster, tmp_path):
    log = tmp_path / "log"
    log.touch()
    with Cluster(cluster.scheduler_address) as pool:
        pool.submit("bad", die, log, 0)
        pool.submit("good", work, log, 1)
        found = outcomes(pool, 2)
    assert found["good"]["status"] == "done"
    assert found["bad"]["status"] == "failed"
    assert "dask gave it up" in found["bad"]["error"]


def test_a_worker_with_another_unscan_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("unscan.sweep_workers.__version__", "9.9")
    with pytest.raises(InvalidInput, match=r"has unscan \d.*, here is 9\.9; install the same on both"):
        Cluster(cluster.scheduler_address)


def test_a_scheduler_that_is_lost_ends_the_sweep_with_a_word(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
    ) as cluster:
        pool = Cluster(cluster.scheduler_address)
        pool.submit("job", time.sleep, 1)
    with pytest.raises(InvalidInput, match="was lost; what was finished is kept"), pool:
        pool.next()


def test_a_scheduler_that_is_not_there_or_has_no_worker(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("unscan.sweep_workers.CONNECTING", 0.5)
    with pytest.raises(InvalidInput, match="No dask scheduler answers at tcp://127.0.0.1:9"):
        Cluster("tcp://127.0.0.1:9")
    with pytest.raises(InvalidInput, match="No dask scheduler answers at nowhere"):
        Cluster("nowhere://x")
    empty = partial(distributed.LocalCluster, n_workers=0, processes=True, dashboard_address=":0")
    with empty() as cluster, pytest.raises(InvalidInput, match="has no worker; start one with"):
        Cluster(cluster.scheduler_address)
