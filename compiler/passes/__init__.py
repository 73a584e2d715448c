"""Passes by name, in the order in which they run; `compiler.pipeline` says which of them do."""

from unscan.compiler.passes.base import Pass, Rewrite
from unscan.compiler.passes.calibrate import Calibrate, Rates
from unscan.compiler.passes.drop_surrogate import DropSurrogate
from unscan.compiler.passes.fold_norm import FoldNorm
from unscan.compiler.passes.fold_threshold import FoldThreshold
from unscan.compiler.passes.fuse_linear import FuseLinear
from unscan.compiler.passes.prune_dead import PruneDead
from unscan.compiler.passes.quantize import Quantize
from unscan.compiler.passes.quantize_lowering import Range, Ranges, SoftReset
from unscan.compiler.passes.restore_reset import RestoreReset
from unscan.compiler.passes.scalar_decay import ScalarDecay
from unscan.compiler.passes.sparsify_top_k import Count, Kept, SparsifyTopK
from unscan.compiler.passes.unroll import Unroll

PASSES: dict[str, type[Pass]] = {
    kind.name: kind
    for kind in (
        DropSurrogate,
        Unroll,
        SparsifyTopK,
        RestoreReset,
        Calibrate,
        FoldNorm,
        FuseLinear,
        ScalarDecay,
        FoldThreshold,
        PruneDead,
        Quantize,
    )
}

__all__ = [
    "PASSES",
    "Calibrate",
    "Count",
    "DropSurrogate",
    "FoldNorm",
    "FoldThreshold",
    "FuseLinear",
    "Kept",
    "Pass",
    "PruneDead",
    "Quantize",
    "Range",
    "Ranges",
    "Rates",
    "RestoreReset",
    "Rewrite",
    "ScalarDecay",
    "SoftReset",
    "SparsifyTopK",
    "Unroll",
]
