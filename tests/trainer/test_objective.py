import pytest
import torch
from torch.nn import functional

from unscan.compiler.errors import InvalidInput
from unscan.trainer.objective import Objective, gradients
from unscan.trainer.tasks import IGNORED, Part, Task


def task(targets):
    part = Part(torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.int64))
    return Task("made", "made up", 2, 0.5, (1,), 3, "real", part, part, targets=targets)


def test_a_class_is_read_off_the_last_step_or_the_mean():
    outputs, y = torch.randn(4, 5, 3), torch.tensor([0, 1, 2, 1, 0])
    for decision, scores in (("last", outputs[-1]), ("mean", outputs.mean(0))):
        loss, right = Objective("class", decision).score(outputs, y)
        torch.testing.assert_close(loss, functional.cross_entropy(scores, y, reduction="sum"))
        assert right == int((scores.argmax(1) == y).sum())
    assert Objective("class", "last").asked(y) == 5


def test_classes_of_steps_count_only_where_they_are_asked_for():
    outputs = torch.randn(4, 2, 3)
    y = torch.tensor([[0, IGNORED, 2, IGNORED], [IGNORED, 1, IGNORED, IGNORED]])
    objective = Objective("classes", "every")
    loss, right = objective.score(outputs, y)
    places = [(0, 0, 0), (2, 0, 2), (1, 1, 1)]
    assert objective.asked(y) == 3
    expected = -sum(outputs[t, b].log_softmax(0)[wanted] for t, b, wanted in places)
    torch.testing.assert_close(loss, expected)
    assert right == sum(int(outputs[t, b].argmax() == wanted) for t, b, wanted in places)


def test_bits_count_only_where_they_are_asked_for():
    outputs = torch.randn(3, 2, 4)
    y = torch.full((2, 3, 4), IGNORED, dtype=torch.int8)
    y[:, -1] = torch.tensor([[0, 1, 1, 0], [1, 1, 0, IGNORED]], dtype=torch.int8)
    objective = Objective("bits", "every")
    loss, right = objective.score(outputs, y)
    assert objective.asked(y) == 7
    logits, bits = outputs[-1].flatten()[:7], y[:, -1].flatten()[:7].float()
    expected = -(bits * logits.sigmoid().log() + (1 - bits) * (1 - logits.sigmoid()).log()).sum()
    torch.testing.assert_close(loss, expected)
    assert right == int(((logits >= 0) == (bits == 1)).sum())


@pytest.mark.parametrize("targets", ["classes", "bits"])
@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_chunks_weigh_by_what_is_asked_in_the_whole_batch(targets, chunk_size):
    torch.manual_seed(1)
    model = torch.nn.Linear(2, 3).double()
    x = torch.randn(4, 5, 2, dtype=torch.float64)
    y = torch.randint(-1, 2, (5, 4) if targets == "classes" else (5, 4, 3))
    y[0] = IGNORED
    objective = Objective(targets, "every")
    loss, right = gradients(model, x, y, objective)
    whole = model.weight.grad.clone()
    model.zero_grad()
    assert gradients(model, x, y, objective, chunk_size) == (pytest.approx(loss, rel=1e-12), right)
    assert whole.abs().max() > 0
    torch.testing.assert_close(model.weight.grad, whole, rtol=1e-10, atol=1e-14)
    model.zero_grad()
    (objective.score(model(x), y).loss / objective.asked(y)).backward()
    torch.testing.assert_close(model.weight.grad, whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("targets", "decision", "allowed"),
    [("class", "every", "last or mean"), ("bits", "last", "every"), ("classes", "mean", "every")],
)
def test_a_readout_that_answers_elsewhere_is_refused(targets, decision, allowed):
    with pytest.raises(InvalidInput, match=rf"decision is {decision}.*made.*allowed: {allowed}"):
        Objective.of(task(targets), decision)
