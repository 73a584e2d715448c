import torch

from unscan.trainer.dropout import SequenceDropout


def test_a_channel_is_dropped_for_the_whole_sequence_or_not_at_all():
    torch.manual_seed(0)
    y = SequenceDropout(0.25)(torch.ones(30, 200, 50))
    assert torch.equal(y, y[:1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs((y[0] == 0).double().mean().item() - 0.25) < 0.02


def test_nothing_is_dropped_in_evaluation_and_masks_differ_from_call_to_call():
    layer, x = SequenceDropout(0.5), torch.rand(3, 40, 50)
    assert not torch.equal(layer(x), layer(x))
    assert layer.eval()(x) is x
