"""What two implementations of a recurrence are compared on: outputs bit for bit, gradients within rounding."""

import torch


def flat(outputs):
    """Take apart what a recurrence returns: tensors, and tuples of them."""
    for output in outputs:
        if isinstance(output, tuple):
            yield from flat(output)
        elif output is not None:
            yield output


def outcome(run, inputs, learn=None):
    """Run forward and backward: all outputs, and the gradients of all inputs, or of the `learn` first ones."""
    leaves = [value.clone() for value in inputs]
    for leaf in leaves[:learn]:
        leaf.requires_grad_()
    outputs = run(*leaves)
    outputs = list(flat(outputs if isinstance(outputs, tuple) else (outputs,)))
    torch.manual_seed(7)
    sum((o * torch.randn(o.shape, dtype=torch.float64).to(o.dtype)).sum() for o in outputs).backward()
    return [o.detach() for o in outputs], [leaf.grad for leaf in leaves]


def assert_same(got, want, tolerance):
    """Outputs bit for bit; gradients within `tolerance` of the largest."""
    for a, b in zip(got[0], want[0], strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    for place, (a, b) in enumerate(zip(got[1], want[1], strict=True)):
        if b is None or b.numel() == 0:
            assert a is None or not a.any(), place
            continue
        assert a.shape == b.shape, place
        assert a.dtype == b.dtype, place
        assert (a - b).abs().max() <= tolerance * b.abs().max(), place


def lattice(steps, *shape, seed=0):
    """Tenths in float32: membranes often meet a round threshold, and float32 and float64 then part."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 6, (steps, *shape), generator=generator).float() / 10


def first_partings(s32, s64):
    """Step of the first difference of each lane, and which lanes have one. At least one does."""
    differs = s32.double() != s64
    assert differs.any()
    return differs.to(torch.int8).argmax(0)[None], differs.any(0)
