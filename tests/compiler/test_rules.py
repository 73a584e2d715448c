import numpy as np
import pytest
import torch
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Builder
from unscan.compiler.frontends.modules import read
from unscan.compiler.frontends.rules import back_from, close, float64, plain, refuse, refused, said, within
from unscan.compiler.nodes import Input, Threshold


def test_a_class_that_changes_the_one_with_the_rule_is_refused():
    class Own(nn.Identity):
        def part(self):
            pass

    class Changed(Own):
        def part(self):
            return 2

    plain(nn.Identity())
    plain(Own())
    with pytest.raises(Unsupported, match="Changed writes part anew"):
        plain(Changed())


def started():
    """Return a builder with an input of four neurons."""
    to = Builder(np.float64)
    return to, to.add("input", Input((4,)))


def test_a_module_within_another_is_read_by_its_rule():
    to, x = started()
    linear = nn.Linear(4, 2)
    assert within(nn.Sequential(linear), linear, to, "outer.0", x) == ("outer.0",)
    with pytest.raises(Unsupported, match="in it stands a Sequential, which has no rule of its own"):
        within(nn.Identity(), nn.Sequential(linear), to, "outer.1", x)


def test_spikes_come_back_and_numbers_do_not():
    to, x = started()
    back = back_from(to, "neuron", (4,))
    spikes = to.add("neuron", Threshold(threshold=to.number(1)), x + back)
    assert close(nn.Identity(), to, back, spikes) == spikes
    assert to.graph().recurrent
    with pytest.raises(Unsupported, match="what comes back to it are real numbers"):
        close(nn.Identity(), to, back, x)


def test_numbers_are_read_in_float64():
    assert float64(torch.tensor([0.5])).dtype == float64(2).dtype == np.float64
    assert said(float64(torch.tensor([0.5, 2.0]))) == "0.5 to 2"
    assert said(float64(0.5)) == "0.5"


def test_a_refusal_names_the_package():
    assert str(refused(nn.Identity(), "no")) == "a torch.Identity, which cannot be read: no"


def test_a_class_without_a_node_is_refused_with_its_reason():
    class Shuffled(nn.Module):
        pass

    class Own(Shuffled):
        pass

    refuse({Shuffled: "it draws numbers"})
    to, x = started()
    with pytest.raises(Unsupported, match=r"a tests\.Own, which cannot be read: it draws numbers"):
        read(Own(), to, "shuffled", x)
