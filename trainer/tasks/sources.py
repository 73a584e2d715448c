"""Where data files come from: a folder that the user names, or else a public hub."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unscan.compiler.errors import InvalidInput, MissingDependency
from unscan.trainer.tasks.idx import Bytes

if TYPE_CHECKING:
    from datasets import Dataset

Labelled = tuple[Bytes, Bytes]
"""Images (N, ...) and their classes (N,)."""


def data_folder(data_dir: Path | None, title: str) -> Path | None:
    """Return the folder that was given, or that UNSCAN_DATA names, or None; raises InvalidInput if it is none."""
    stated = data_dir or (Path(os.environ["UNSCAN_DATA"]) if os.environ.get("UNSCAN_DATA") else None)
    if stated is not None and not stated.is_dir():
        raise InvalidInput(
            f"the data directory {stated} is not a folder; name one that holds the {title} files"
        )
    return stated


@dataclass(frozen=True)
class Hub:
    """A data set of labelled images on the public hub: its name there, and its columns."""

    name: str
    title: str
    images: str = "image"
    labels: str = "label"

    def fetch(self, looked: str, advice: str) -> tuple[Labelled, Labelled]:
        """Return the training and the test part, from the cache of the package `datasets` or over a network.

        `looked` says where no files were found and `advice` what to do instead; both end up in errors. Raises
        MissingDependency without the package, and InvalidInput when the hub cannot be reached.
        """
        looked = f"{looked} (--data-dir or UNSCAN_DATA)"
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise MissingDependency(
                f"{looked}, and fetching {self.title} from the public hub needs a package: "
                f"pip install 'unscan[hub]'; or {advice}"
            ) from error
        try:
            parts = load_dataset(self.name)
            return self._part(parts["train"]), self._part(parts["test"])
        # What a failed download raises is the hub client's affair and changes with its version.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidInput(
                f"{looked}, and {self.name} could not be fetched from the public hub ({reason}); connect to a "
                f"network, or {advice}"
            ) from error

    def _part(self, part: "Dataset") -> Labelled:
        columns = part.with_format("numpy")[:]
        return np.asarray(columns[self.images], np.uint8), np.asarray(columns[self.labels], np.uint8)
