"""The wheel, the list of packages, and who may import whom."""

import ast
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("trainer", "compiler", "runtime", "targets", "benchmarks")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_is_a_package_that_is_listed():
    found = {"unscan"}
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("unscan", *file.parent.relative_to(ROOT).parts)))
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_python_file_stands_in_a_package():
    loose = [
        f
        for folder in FOLDERS
        for f in (ROOT / folder).rglob("*.py")
        if not (f.parent / "__init__.py").exists()
    ]
    assert loose == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "unscan"
    ignored = shutil.ignore_patterns(
        ".*", "build", "dist", "__pycache__", "*.egg-info", "tests", "unscan-demo", "runs"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    out = source.parent / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_every_module_and_recipe_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {f"unscan/{f.name}" for f in (ROOT / "unscan").iterdir() if f.suffix in (".py", ".typed")}
    for folder in FOLDERS:
        wanted |= {f"unscan/{f.relative_to(ROOT)}" for f in (ROOT / folder).rglob("*.py")}
    wanted |= {f"unscan/{f.relative_to(ROOT)}" for f in (ROOT / "trainer" / "recipes").glob("*.yaml")}
    wanted |= {f"unscan/{f.relative_to(ROOT)}" for f in (ROOT / "trainer" / "weights").iterdir()}
    wanted.add("unscan/runtime/lava/requirements.txt")
    wanted |= {f"unscan/runtime/report/{name}" for name in ("page.html.jinja", "style.css")}
    assert inside == wanted


def test_the_wheel_installs_into_an_empty_environment_and_runs(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    # The dependencies are lent by the environment of the tests; its own link to this checkout is not.
    (lib,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    lent = [path for path in sys.path if path.endswith("site-packages")]
    (lib / "lent.pth").write_text("\n".join(lent))
    code = "import unscan, unscan.compiler.ir as ir, unscan.trainer; print(ir.__file__); print(unscan.load)"
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert str(lib / "unscan" / "compiler" / "ir.py") in done.stdout
    command = tmp_path / "env" / "bin" / "unscan"
    done = subprocess.run([command, "passes"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert "restore-reset" in done.stdout


def test_the_compiler_imports_numpy_networkx_and_safetensors_only():
    code = (
        "import sys; before = set(sys.modules)\n"
        "import unscan.compiler.pipeline, unscan.compiler.storage, unscan.compiler.nodes, unscan.compiler.passes\n"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    modules = set(done.stdout.split())
    assert {"numpy", "networkx", "safetensors"} <= modules
    heavy = {
        "torch",
        "lightning",
        "numba",
        "onnx",
        "onnxruntime",
        "nir",
        "h5py",
        "scipy",
        "pydantic",
        "rich",
        "click",
    }
    assert not modules & heavy


ABOVE = {
    "compiler": {"compiler"},
    "frontends": {"compiler", "trainer"},
    "trainer": {"trainer"},
    "targets": {"compiler", "targets"},
    "runtime": {"compiler", "targets", "runtime"},
    "benchmarks": {"compiler", "targets", "runtime", "trainer", "benchmarks"},
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_run_one_way(folder):
    for file in (ROOT / folder).rglob("*.py"):
        part = "frontends" if "frontends" in file.parts else folder
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unscan."):
                used = node.module.split(".")[1]
                if folder == "trainer" and node.module == "unscan.compiler.errors":
                    continue
                assert used in ABOVE[part], f"{file.relative_to(ROOT)} imports {node.module}"


def test_everything_public_can_be_had():
    import unscan

    assert sorted(unscan._PUBLIC) == sorted(unscan.__all__)
    for name in unscan.__all__:
        assert getattr(unscan, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'ghost'"):
        _ = unscan.ghost
    assert unscan.__version__ == PROJECT["project"]["version"]
