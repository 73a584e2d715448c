"""The 8x8 digits of scikit-learn, one pixel per step: small, real and shipped with a library."""

from pathlib import Path

import torch

from unscan.trainer.tasks.task import Part, Task

TRAIN = 1437


def digits(data_dir: Path | None = None) -> Task:
    """Load the 1 797 images of 8x8 pixels as sequences of 64 steps, brightness in [0, 1].

    The first 1 437 images train and the last 360 test, in the order of the data set, whose last part comes
    from other writers: a shuffled split would be easier and say less. `data_dir` is not used, the images come
    with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.data / 16, dtype=torch.float32).unsqueeze(-1)
    y = torch.tensor(bunch.target, dtype=torch.int64)
    return Task(
        name="digits",
        description="scikit-learn's 8x8 digits, pixel by pixel; first 1437 images train, last 360 test",
        classes=10,
        chance=0.1,
        input_shape=(1,),
        steps=x.shape[1],
        kind="real",
        train=Part(x[:TRAIN], y[:TRAIN]),
        test=Part(x[TRAIN:], y[TRAIN:]),
    )
