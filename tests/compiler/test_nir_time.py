"""The step that a file shows, and what frameworks do in one."""

import nir
import numpy as np
import pytest

from tests.compiler.nir_files import DT, Euler, cuba, full, graph_of, inputs, lif, ours, write
from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.frontends.nir_time import CONVENTIONS, DIALECTS, shown_dt
from unscan.compiler.nodes import CubaLIF, Scale


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.nir"


def at(dt, *betas, dtype=np.float32):
    """Return neurons whose gain is 1 at dt, as snnTorch writes them."""
    tau = (dt / (1 - np.array(betas))).astype(dtype)
    return lif(tau=tau, r=(tau / dtype(dt)).astype(dtype))


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 2.5e-5])
def test_a_dt_at_which_every_gain_is_1_is_found(path, dt):
    primitives = [at(dt, 0.9, 0.5, 0.99), nir.IF(r=full(1 / dt), v_threshold=full(1))]
    found = read_nir(write(path, *primitives))
    assert found.meta["dt"] == dt
    assert f"read-nir found dt = {dt:g} s: the one at which every gain is 1" in found.history
    np.testing.assert_allclose(found.nodes["p0"].beta, [0.9, 0.5, 0.99], atol=1e-6)
    assert "p0.gain" not in found.nodes
    assert read_nir(path, dt=dt / 2).meta["dt"] == dt / 2


def test_a_synaptic_neuron_shows_dt_by_both_gains(path):
    neuron = cuba(tau_syn=full(0.002), w_in=full(2), tau_mem=full(0.01), r=full(10))
    assert read_nir(write(path, neuron)).meta["dt"] == DT
    neuron = cuba(tau_syn=full(0.002), w_in=full(3), tau_mem=full(0.01), r=full(10))
    with pytest.raises(
        InvalidInput, match=r"gain dt w_in / tau_syn = dt x 1500, .*gain dt r / tau_mem = dt x 1000"
    ):
        read_nir(write(path, neuron))


SILENT = {
    "its time constant": {"a": lif()},
    "two": {"a": at(1e-4, 0.5, 0.6, 0.7), "b": at(1e-3, 0.5, 0.6, 0.7)},
    "one neuron apart": {"a": lif(r=np.array([10, 10, 10.001]))},
    "no gain": {"a": lif(r=full(0))},
    "negative": {"a": lif(r=full(-10))},
    "no neurons": {"a": nir.Delay(full(DT))},
}


@pytest.mark.parametrize("case", SILENT)
def test_no_dt_is_guessed(case):
    assert shown_dt(SILENT[case]) is None


def test_a_delay_alone_needs_dt(path):
    with pytest.raises(InvalidInput, match=r"--dt SECONDS.*Delay 'p0': delay 0.002 s"):
        read_nir(write(path, nir.Delay(full(2 * DT))))


def test_every_dialect_has_a_convention():
    assert set(CONVENTIONS) == set(DIALECTS)


def test_nir_s_own_equations_are_the_default(path):
    write(path, lif(tau=full(0.004), r=full(5)))
    assert read_nir(path, dt=DT) == read_nir(path, dt=DT, dialect="nir")
    assert read_nir(path, dt=DT, dialect="nir").history[0] == "read-nir model.nir, dt = 0.001 s"


def test_snntorch_resets_one_step_late_but_to_zero_without_feedback(path):
    write(path, at(1e-4, 0.9, 0.8, 0.7))
    found = read_nir(path, dialect="snntorch")
    assert found.history[0] == "read-nir model.nir, as snntorch runs it, dt = 0.0001 s"
    assert (found.nodes["p0"].reset, found.nodes["p0"].phase, found.nodes["p0"].fires) == (
        "subtract",
        "next",
        ">",
    )
    assert read_nir(path, dialect="snntorch", reset="zero").nodes["p0"].phase == "now"
    assert read_nir(path, dialect="snntorch", reset="zero", phase="next").nodes["p0"].phase == "next"
    neuron = cuba(tau_syn=full(2e-4), w_in=full(2), tau_mem=full(1e-3), r=full(10))
    assert read_nir(write(path, neuron), dialect="snntorch", reset="zero").nodes["p0"].phase == "next"
    edges = [("in", "p0"), ("p0", "p0"), ("p0", "out")]
    write(path, at(1e-4, 0.9, 0.8, 0.7), edges=edges)
    assert read_nir(path, dialect="snntorch", reset="zero").nodes["p0"].phase == "next"


def test_norse_counts_in_steps_what_nir_counts_in_seconds(path):
    """Its tau is that of the model times dt = 1e-3 s, and a spike adds to the current what it carries."""
    found = read_nir(write(path, lif(tau=full(5e-6))), dialect="norse")
    assert found.nodes["p0"].beta == pytest.approx(0.8)
    found = read_nir(write(path, cuba(tau_syn=full(4e-6), tau_mem=full(5e-6))), dialect="norse")
    assert isinstance(found.nodes["p0"], CubaLIF)
    assert found.nodes["p0"].alpha == pytest.approx(0.75)
    assert not [node for node in found.nodes.values() if isinstance(node, Scale)]
    found = read_nir(write(path, nir.IF(full(1), full(1))), dialect="norse")
    assert "read-nir IF p0: no decay, gain r = 1" in found.history


def test_sinabs_decays_exactly_and_spikingjelly_fires_on_a_tie(path):
    found = read_nir(write(path, lif(tau=np.array([2.0, 4.0, 8.0]))), dialect="sinabs").nodes["p0"]
    np.testing.assert_allclose(found.beta, np.exp(-1 / np.array([2.0, 4.0, 8.0])))
    assert (found.reset, found.phase, found.fires, found.gain) == ("subtract", "now", ">=", "1-beta")
    found = read_nir(write(path, lif(tau=full(5e-4))), dialect="spikingjelly").nodes["p0"]
    assert (found.reset, found.phase, found.fires, found.gain) == ("zero", "now", ">=", "1-beta")
    assert found.beta == pytest.approx(0.8)


def test_the_exact_solution_of_a_file_is_the_limit_of_euler_s_steps(path):
    """With a constant input, sinabs' decay over one step is that of 1000 of Euler's."""
    neuron = nir.LI(tau=full(3.0), r=full(2), v_leak=full(0))
    exact = ours(read_nir(write(path, neuron), dialect="sinabs"), inputs(5, rate=2.0))
    fine = Euler(graph_of({"p0": neuron}), dt=1e-3).run(inputs(5000, rate=2.0))
    np.testing.assert_allclose(exact, fine[999::1000], atol=1e-3)
