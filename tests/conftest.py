"""What all tests share: without a GPU, Triton interprets its kernels. It reads this when it is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
