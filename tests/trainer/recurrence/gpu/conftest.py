"""Where the kernels' tests run: on a GPU where there is one, else in Triton's interpreter, which is slow."""

import pytest
import torch


@pytest.fixture
def device():
    """The device to make cases on."""
    pytest.importorskip("triton", reason="Triton is there for Linux only")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
