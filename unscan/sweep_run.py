"""The order of a sweep's jobs: a recipe is trained once, then its points are measured; each outcome is kept at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from unscan.sweep_plan import Point
from unscan.sweep_points import measure, train
from unscan.sweep_results import Store
from unscan.sweep_workers import Outcome, Pool, failed
from unscan.trainer.run import RunFiles


def run(
    points: Sequence[Point],
    store: Store,
    pool: Pool,
    *,
    data_dir: Path | None = None,
    progress: Callable[[str, float], None] = lambda now, share: None,
    told: Callable[[Point, Outcome], None] = lambda point, outcome: None,
) -> None:
    """Run points, and keep the outcome of each as soon as it is known.

    Args:
        points: what is run, each of another key.
        store: gets an outcome for each.
        pool: does the work; it is closed at the end, and where this is broken off.
        data_dir: folder of data files.
        progress: called with what has been done and the share of it.
        told: called with each point and its outcome, once that is kept.
    """

    def keep(point: Point, outcome: Outcome) -> None:
        store.write(point, outcome)
        told(point, outcome)

    waiting: dict[str, list[Point]] = {}
    for point in points:
        if point.source.recipe is not None and not RunFiles(Path(point.source.path)).result.is_file():
            waiting.setdefault(point.source.path, []).append(point)
    trainings = {f"train-{Path(path).name}": path for path in waiting}
    measured = {point.key: point for point in points}
    jobs, over = len(trainings) + len(points), 0
    with pool:
        for key, path in trainings.items():
            pool.submit(key, train, waiting[path][0].source, data_dir)
        for point in points:
            if point.source.path not in waiting:
                pool.submit(point.key, measure, point, data_dir)
        while over < jobs:
            progress(f"{over} of {jobs} jobs done", over / jobs)
            key, outcome = pool.next()
            over += 1
            if key in measured:
                keep(measured[key], outcome)
            elif outcome["status"] == "done":
                for point in waiting[trainings[key]]:
                    pool.submit(point.key, measure, point, data_dir)
            else:
                for point in waiting[trainings[key]]:
                    keep(point, failed(f"its training failed: {outcome['error']}"))
                    over += 1
