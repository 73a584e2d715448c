"""The main job in one go: train on real digits with the exact reset, deploy, and prove it is the same model."""

from __future__ import annotations

import time
from importlib.resources import as_file, files
from pathlib import Path

from unscan.compiler.pipeline import compile_graph
from unscan.runtime.energy import Energy
from unscan.runtime.report.words import joules, score
from unscan.runtime.verify import AGAINST, Verification, verify
from unscan.show import (
    console,
    counts_table,
    neurons_line,
    progress,
    show,
    table,
    write_json,
)
from unscan.show_verification import explain
from unscan.sources import read_run, read_samples, traced
from unscan.targets import export
from unscan.trainer.fit import fit
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles

RECIPE = files("unscan.trainer") / "recipes" / "digits.yaml"


def demo(out: Path) -> bool:
    """Train, compile, export, simulate and verify into a folder; return whether every form is the same model.

    A finished training in the folder is used again, an interrupted one continued.
    """
    began = time.perf_counter()
    with as_file(RECIPE) as path:
        recipe = Recipe.read(path)
    result = fit(recipe, out, resume=RunFiles(out).recipe.is_file())
    run = read_run(out)
    console.print(
        f"Trained {result.epochs} epochs in {result.seconds:.0f} s on {result.task}.", highlight=False
    )

    deployed = compile_graph(traced(run))
    deployed.save(out / "model.unscan")
    export(deployed, out / "model.nir", target="nir")
    export(deployed, out / "model.onnx", target="onnx", form="step")
    export(deployed, out / "model-scan.onnx", target="onnx", form="scan")
    console.print(f"Compiled and exported: {neurons_line(deployed)}.", highlight=False)

    data = read_samples(deployed, inputs=None, labels=None, data_dir=None, limit=None)
    with progress("verify") as bar:
        found = verify(run.model, deployed, data.x, AGAINST, labels=data.labels, progress=bar)
    write_json(out / "verify.json", found.to_json())
    console.print()
    summarise(found, data.description)
    for line in explain(found):
        console.print(line, highlight=False)
    names = "checkpoints/last.ckpt, model.unscan, model.nir, model.onnx, model-scan.onnx, verify.json"
    console.print(f"\nIn {out}: {names}. All of it in {time.perf_counter() - began:.0f} s.", highlight=False)
    return found.holds


def summarise(found: Verification, data: str) -> None:
    """Print the one table: each form of the model, how right it is, and what it costs."""
    counted = next(c for c in found.comparisons if c.executor == "event" and c.counts is not None)
    assert counted.counts is not None
    samples = counted.agreement.samples
    energy, done = Energy.of(counted.counts), counted.counts.total
    made = table(
        f"Every form of the model on {data}", "form", "bits", "accuracy", "right", "spikes", "F1", "differs by ties",
        "outputs differ by", numbers="bits,accuracy,right,spikes,F1,differs by ties,outputs differ by",
    )  # fmt: skip
    for bits in dict.fromkeys(c.precision for c in found.comparisons):
        rows = [c for c in found.comparisons if c.precision == bits]
        first = rows[0]
        model_right = first.right[0] if first.right else 0
        spikes = f"{first.agreement.total.spikes_a:,}"
        made.add_row(
            "as trained, parallel", str(bits), f"{model_right / samples:.2%}", str(model_right), spikes
        )
        for row in rows:
            right = row.right[1] if row.right else 0
            made.add_row(
                row.executor,
                str(bits),
                f"{right / samples:.2%}",
                str(right),
                f"{row.agreement.total.spikes_b:,}",
                score(row.agreement.total.f1),
                f"{len(row.agreement.ties)} of {samples}" if row.agreement.partings else "none",
                f"{row.agreement.output_absolute:.1g}",
            )
    show(made)
    show(counts_table(counted.counts, "Counted event by event"))
    console.print(
        f"\nPer sample {done.acs / samples:,.0f} ACs and {done.macs / samples:,.0f} MACs, "
        f"{joules(energy.synaptic / samples)}; the dense network needs {done.dense_macs / samples:,.0f} MACs, "
        f"{joules(energy.dense / samples)}: {energy.dense / energy.synaptic:.1f} times as much. With state updates "
        f"and memory accesses {joules(energy.total / samples)} against "
        f"{joules((energy.dense + energy.dense_memory) / samples)}. Modelled with {energy.table}.",
        highlight=False,
    )
