"""The tables of docs/nir.md are those of the nodes, profiles and refusals as they are now, and of a run."""

import re

import numpy as np
import pytest

from tests.foreign.environments import HERE
from tests.foreign.nir_matrix import PAGE, cell, inside, measure, measured_in, rows, written
from tests.foreign.nir_networks import SHOWN
from tests.foreign.nir_rows import RUN
from tests.foreign.nir_running import EQUATIONS, PLACES, PORTABLE
from unscan.compiler.nodes import NODES
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import PROFILES, changes, refusals

MEASURED = r"[01]\.\d{4}(, \d late)?"


def test_the_page_says_what_the_profiles_say_now():
    page = PAGE.read_text()
    assert written(measured_in(inside(page))).strip() == inside(page), "run make nir-matrix"


def test_every_cell_that_is_not_refused_was_measured():
    found = measured_in(inside(PAGE.read_text()))
    for name, make in RUN.items():
        graph = make()
        for place in PLACES:
            text = found[name, place.name]
            refused = refusals(graph, profile=place.profile)
            assert re.fullmatch(r"no \(\d+\)" if refused else MEASURED, text), (name, place.name, text)


def test_the_four_frameworks_of_the_portable_profile_agree_on_the_page():
    found = measured_in(inside(PAGE.read_text()))
    for place in PORTABLE:
        assert all(re.match(r"0 of [\d,]+$", found[name, place.name]) for name in SHOWN)
        assert all(
            found[name, place.name] == "1.0000" or found[name, place.name].startswith("no") for name in RUN
        )


def test_what_is_less_than_1_is_explained():
    found = measured_in(inside(PAGE.read_text()))
    for name, make in RUN.items():
        graph = make()
        for place in PLACES:
            text = found[name, place.name]
            if not text.startswith(("1.0000", "no")):
                assert "several" in {change.kind for change in changes(graph, place.profile)}, (
                    name,
                    place.name,
                )


def test_every_iterative_node_has_a_row():
    held = {type(node) for graph, _ in rows().values() for node in graph.nodes.values()}
    iterative = {node for node in NODES.values() if node.dialect.name != "PARALLEL"}
    whole = {node for node in iterative if node.__module__.endswith("integer")}
    assert iterative - whole <= held


def test_every_row_fires():
    for name, (graph, x) in rows().items():
        if any(not refusals(graph, profile=profile) for profile in PROFILES):
            assert 0.01 < np.mean(Reference(graph).run(x, record=False).outputs > 0) < 0.9, name


def test_versions_are_those_of_the_environments():
    for place in PLACES:
        if place.environment == EQUATIONS:
            continue
        requirements = (HERE / "requirements" / f"{place.environment}.txt").read_text()
        version = re.findall(rf"^(?:--no-deps )?{place.environment}==(.+)$", requirements, flags=re.MULTILINE)
        stated = [text for text in PROFILES[place.profile].proven if text.startswith(place.label)]
        assert len(stated) == 1
        assert stated[0].split()[1].rstrip(",") == version[0]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=[place.name for place in PLACES])
def test_the_matrix_is_what_a_run_gives(place):
    stated = measured_in(inside(PAGE.read_text()))
    for (name, _), outcome in measure(rows(), (place,)).items():
        text = stated[name, place.name]
        assert (
            (cell(outcome) == text) if text.startswith("1.0000") else abs(outcome.f1 - float(text[:6])) < 0.02
        )
