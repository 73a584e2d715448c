"""`unscan report`: from a run to one file that a browser shows, with every section."""

import json
import re
import shutil
import subprocess

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import unscan
from tests.graphs import sequence, two_layers
from tests.runtime.report.pages import check
from tests.test_tiny import RECIPE
from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.storage import load
from unscan.report import read_trained, report, typed
from unscan.runtime.judge import ranges, rates
from unscan.sources import read_graph, read_samples
from unscan.trainer.fit import fit
from unscan.trainer.recipe import Recipe


def write(*arguments):
    """Run the command, and return what it printed."""
    done = CliRunner().invoke(report, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on digits, deployed with a reset and in whole numbers, and the report on both."""
    made = tmp_path_factory.mktemp("report")
    layers = [
        {"width": 24, "neuron": {"kind": "state_leaky", "beta": 0.9}, "norm": "batch"},
        {"width": 16, "neuron": {"kind": "state_leaky", "beta": 0.8}},
    ]
    network = {"layers": layers, "readout": {"beta": 0.98}}
    recipe = {**RECIPE, "network": network, "epochs": 2, "precision": 32, "validation": 0.1}
    fit(Recipe.parse(recipe, source="tiny"), made / "run", quiet=True)
    traced = read_graph(made / "run")
    x = read_samples(traced, inputs=None, labels=None, data_dir=None, limit=8, training=True).x
    unscan.compile(traced, reset="zero", calibrate=rates(x)).save(made / "zero.unscan")
    unscan.compile(traced, quantize="loihi2", ranges=ranges(x)).save(made / "whole.unscan")
    said = write(
        made / "run", "--deployed", made / "zero.unscan", "--deployed", made / "whole.unscan", "--samples", 12,
        "-o", made / "report.html", "--json", made / "report.json", "--trace", "layer1.neuron:3",
        "--against", "reference,event,onnx",
    )  # fmt: skip
    assert "executions model, reference, event, onnx" in " ".join(said.split())
    return made


SECTIONS = {
    "What was trained": 2,
    "Accuracy and gap": 2,
    "Deployed: zero.unscan": 2,
    "Deployed: whole.unscan": 2,
    "The commands that made it": 2,
    "How it was made": 3,
    "The graph": 3,
    "Agreement": 3,
    "Activity": 3,
    "Membranes": 3,
    "Operations and energy": 3,
    "Calibration": 3,
    "Quantisation": 3,
}


def test_every_section_is_there(folder):
    html = (folder / "report.html").read_text()
    page = check(html)
    found = {title: level for level, title in page.headings}
    assert found.items() >= SECTIONS.items()
    assert len(html.encode()) < 200_000
    assert len(page.root.all("svg")) >= 14
    told = page.root.text
    for said in (
        "restore-reset",
        "layer1.neuron: reset none (now) -> zero (now), trained with reset none",
        "layer1.neuron, neuron 3, sample 0: asked for",
        "profile loihi2",
        "Spikes per neuron and step on the test part, as trained.",
        "unscan verify",
        "--trace layer1.neuron:3",
    ):
        assert said in told, said
    tables = page.tables()
    right = {row[0]: row[1:3] for row in tables["Accuracy on both sides, and the gap between them"]}
    document = json.loads((folder / "report.json").read_text())
    zero, whole = document["deployed"]
    assert right["model"][0] == f"{zero['right']['model']} of 12"
    assert right["zero.unscan, every executor"][0] == f"{zero['right']['event']} of 12"
    assert right["whole.unscan, every executor"][0] == f"{whole['right']['event']} of 12"
    assert zero["right"]["model"] == whole["right"]["model"]
    same = [p["agreement"]["total"]["f1"] for p in zero["pairs"] if p["a"] != "model"]
    assert same == [1, 1, 1]
    assert whole["graph"] == load(folder / "whole.unscan").digest
    assert whole["rounding"]["profile"] == "loihi2"


def test_the_same_run_gives_the_same_report(folder):
    arguments = [
        folder / "run", "--samples", 3, "--against", "reference,event", "-o", folder / "again.html",
    ]  # fmt: skip
    write(*arguments)
    first = (folder / "again.html").read_text()
    write(*arguments)
    assert (folder / "again.html").read_text() == first
    page = check(first)
    assert (2, "Deployed: run, compiled as it was trained") in page.headings
    cells = [e for e in page.root.all("td") if "good" in (e.attributes.get("class") or "")]
    assert len(cells) == 6
    assert {e.text for e in cells} <= {"1", "1\nties alone"}


def test_a_graph_alone_and_arrays(folder):
    write(folder / "zero.unscan", "--samples", 3, "--against", "event", "-o", folder / "alone.html")
    page = check((folder / "alone.html").read_text())
    assert "What was trained" not in {title for _, title in page.headings}
    assert "Only event ran, so there is nothing to compare it with." in page.root.text
    graph = two_layers(kind=Kind.SPIKE)
    graph.save(folder / "spikes.unscan")
    x = sequence(graph, 30, 4)
    np.save(folder / "x.npy", x)
    write(
        folder / "spikes.unscan",
        "--input",
        folder / "x.npy",
        "-o",
        folder / "arrays.html",
        "--against",
        "event,c",
    )
    page = check((folder / "arrays.html").read_text())
    assert "There are no labels or no decision over time" in page.root.text
    assert "x.npy, 30 steps each" in page.root.text


def test_a_parallel_graph_is_compiled_and_stands_as_the_model(folder):
    read_graph(folder / "run").save(folder / "parallel.unscan")
    write(folder / "parallel.unscan", "--samples", 3, "--against", "event", "-o", folder / "parallel.html")
    page = check((folder / "parallel.html").read_text())
    assert (2, "Deployed: parallel.unscan, compiled as it was trained") in page.headings
    assert "model against event, by layer" in page.root.text


def test_a_run_that_is_not_complete_says_so(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "half")
    (tmp_path / "half" / "result.json").unlink()
    assert read_trained(tmp_path / "half").parameters is None
    write(tmp_path / "half", "--samples", 2, "--against", "event", "-o", tmp_path / "half.html")
    assert "The run is not complete" in check((tmp_path / "half.html").read_text()).root.text
    (tmp_path / "half" / "metrics.csv").write_text("epoch,train_loss\n1,x\n")
    with pytest.raises(DamagedFile, match="does not hold figures"):
        read_trained(tmp_path / "half")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--trace", "ghost:1"], "those that do are layer1.neuron, layer2.neuron"),
        (["run", "--against", "ghost"], "no executor 'ghost'"),
        (["run", "--energy", "ghost"], "no energy table 'ghost'"),
        (["run", "--deployed", "ghost.unscan"], "no file .*ghost.unscan"),
        (["run", "--deployed", "other.unscan"], "takes .* and .* takes"),
        (
            ["run", "--deployed", "run"],
            r"run is a model as it was trained, .*: unscan compile /.*/run -o model\.unscan",
        ),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(folder, tmp_path, arguments, said):
    two_layers(kind=Kind.SPIKE).save(folder / "other.unscan")
    paths = [folder / a if a == "run" or a.endswith(".unscan") else a for a in arguments]
    with pytest.raises(InvalidInput, match=said):
        write(*paths, "--samples", 2, "-o", tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_a_command_is_told_as_it_was_typed():
    @click.command()
    @click.argument("source")
    @click.option("-o", "--output")
    @click.option("--flag", is_flag=True)
    @click.option("--other", default="x")
    @click.option("--several", multiple=True)
    def command(**_):
        click.echo(list(typed(click.get_current_context())))

    said = CliRunner().invoke(command, ["-o", "b", "a", "--several", "1", "--flag", "--several", "2"]).output
    assert said.strip() == "['a', '--output', 'b', '--flag', '--several', '1', '--several', '2']"


def test_the_recipe_is_spelled_out(folder):
    page = check((folder / "report.html").read_text())
    (recipe,) = [
        e for e in page.root.all("pre") if "recipe" in (e.attributes.get("aria-label") or "").lower()
    ]
    assert yaml.safe_load(recipe.text)["network"]["layers"][0]["width"] == 24
    assert [row[0] for row in page.tables()["The network and its training"]] == [
        "part", "layer 1", "layer 2", "readout", "optimiser", "training", "size",
    ]  # fmt: skip


chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(tmp_path, *arguments):
    """Run Chromium without a window, and return what it wrote and what it logged."""
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-extensions",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", *arguments,
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


PROBE = """<script>
const off = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, details")
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + " " + e.textContent.slice(0, 40));
const flat = [...document.querySelectorAll("section, svg, table")].filter(e => !e.closest("details")
  && e.getBoundingClientRect().height < 10).map(e => e.tagName);
document.querySelector("a").focus();
document.documentElement.dataset.found = JSON.stringify({
  off, flat, wide: document.documentElement.scrollWidth - innerWidth,
  skip: document.activeElement.className,  // a window in the background styles no :focus, so the rule is read
  shown: [...document.styleSheets[0].cssRules].find(r => r.selectorText === ".skip:focus").style.left,
  ground: getComputedStyle(document.body).backgroundColor,
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(chromium is None, reason="there is no Chromium; apt-get install chromium")
@pytest.mark.parametrize("width", [500, 1280])
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_browser_shows_every_part_without_an_error(folder, tmp_path, width, mode):
    image = pytest.importorskip("PIL.Image")
    arguments = [f"--window-size={width},1000"]
    if mode == "dark":
        arguments += ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    shot = tmp_path / "shot.png"
    _, logged = browse(tmp_path, *arguments, f"--screenshot={shot}", f"file://{folder / 'report.html'}")
    assert "CONSOLE" not in logged
    seen = np.asarray(image.open(shot).convert("RGB"))
    assert seen.shape[:2] == (1000, width)
    ground = seen[-1, 0]
    assert (ground.mean() > 200) == (mode == "light")
    assert 0.02 < (seen != ground).any(axis=2).mean() < 0.6
    probed = tmp_path / "probed.html"
    probed.write_text((folder / "report.html").read_text().replace("</body>", PROBE))
    written, logged = browse(tmp_path, *arguments, "--dump-dom", f"file://{probed}")
    assert "CONSOLE" not in logged
    (found,) = re.findall(r'data-found="([^"]*)"', written)
    found = json.loads(found.replace("&quot;", '"'))
    assert found["off"] == []
    assert found["flat"] == []
    assert found["wide"] <= 0
    assert (found["skip"], found["shown"]) == ("skip", "1rem")
    assert found["ground"] == ("rgb(255, 255, 255)" if mode == "light" else "rgb(21, 24, 27)")


@pytest.mark.slow
@pytest.mark.skipif(chromium is None, reason="there is no Chromium; apt-get install chromium")
def test_it_prints(folder, tmp_path):
    browse(tmp_path, f"--print-to-pdf={tmp_path / 'r.pdf'}", f"file://{folder / 'report.html'}")
    pages = len(re.findall(rb"/Type /Page\b(?!s)", (tmp_path / "r.pdf").read_bytes()))
    assert 4 <= pages <= 40
