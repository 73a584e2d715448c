"""Passes by name; `compiler.pipeline` says in which order they run."""

from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.fold_norm import FoldNorm
from unscan.compiler.passes.fold_threshold import FoldThreshold
from unscan.compiler.passes.prune_dead import PruneDead
from unscan.compiler.passes.restore_reset import RestoreReset
from unscan.compiler.passes.unroll import Unroll

PASSES: dict[str, type[Pass]] = {
    kind.name: kind for kind in (Unroll, RestoreReset, FoldNorm, FoldThreshold, PruneDead)
}

__all__ = ["PASSES", "FoldNorm", "FoldThreshold", "Pass", "PruneDead", "RestoreReset", "Rewrite", "Unroll"]
