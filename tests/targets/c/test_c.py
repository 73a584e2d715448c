"""The files of a model in C: that they are strict C11, need nothing, and say what they take."""

import itertools
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.graphs import sequence
from tests.integers import integer_network, memory_network, numbers_for, spikes_for, state_space_network
from tests.targets.c.running import STRICT, outputs, program, run_program
from tests.targets.every_node import CASES
from tests.targets.networks import DEPLOYED, chain, feed_forward, lif, zoo
from unscan.compiler.errors import InvalidInput, MissingDependency, Unsupported
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Input,
    IntegerCubaLIF,
    IntegerLIF,
    LIFScan,
    Linear,
    Multiply,
    Output,
    Scale,
)
from unscan.runtime.executors.reference import Reference
from unscan.targets.c import TARGET, build, emit, refusals, report, sizes
from unscan.targets.c.sizes import parsed

PEDANTIC = ("-Wpedantic", "-Wconversion", "-Wno-sign-conversion", "-Wshadow")
FLOAT = {
    "zoo": lambda: zoo(np.float32, gelu=True),
    **{name: DEPLOYED[name] for name in ("images-zero", "loop-each", "diagonal", "delay", "adaptive-subtract")},
    **{name: lambda name=name: CASES[name]().astype(np.float32) for name in (
        "associative-subtract-2-scalar", "associative-zero-None-dense", "delta-none-2-scalar", "max-pool-uneven",
        "embedding", "layer-norm", "conv1d-strided", "concatenate-images", "top-k", "activation-softplus",
    )},
}  # fmt: skip
WHOLE = {
    **{f"network-{seed}": lambda seed=seed: integer_network(seed) for seed in (2, 4, 7, 9, 11, 14)},
    "memory": lambda: memory_network(1, reset="subtract"),
    "state-space": state_space_network,
}
ARM = ("arm-linux-gnueabihf-gcc", "-static", "-O2")


def drawn(graph: Graph, steps: int = 40, batch: int = 2):
    (name,) = graph.of(Input)
    kind = graph.nodes[name].kind
    if kind is Kind.REAL and graph.integer:
        return numbers_for(graph, steps, batch)
    return sequence(graph, steps, batch).astype(np.float32)


def needs(*commands: str) -> None:
    absent = [command for command in commands if shutil.which(command) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed")


def compiles(tmp_path, graph: Graph, *flags: str, compiler: str = "gcc") -> None:
    model = build(graph)
    (tmp_path / "model.c").write_text(model.source)
    (tmp_path / "model.h").write_text(model.header)
    done = subprocess.run(
        [compiler, *STRICT, *flags, "-c", "model.c", "-o", "model.o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", [*FLOAT, *WHOLE])
def test_it_is_strict_c11_without_a_warning(tmp_path, case):
    compiles(tmp_path, {**FLOAT, **WHOLE}[case](), "-O2", *PEDANTIC)
    needed = subprocess.run(
        ["nm", "-u", "model.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    allowed = r"memset|memcpy|__stack_chk_fail|(sqrt|tanh|exp|expm1|erf|log1p|rint|fmin|fmax)f?"
    assert all(re.fullmatch(allowed, name) for name in re.findall(r"U (\S+)", needed)), needed


@pytest.mark.parametrize("case", ["network-4", "network-2", "memory", "state-space"])
def test_programs_with_sanitizers_give_the_reference_bit_for_bit(tmp_path, case):
    graph = WHOLE[case]()
    x = drawn(graph)
    checks = ("-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    lines, _ = run_program(program(graph, x), tmp_path, ("gcc", *checks))
    truth = Reference(graph).run(x).outputs
    np.testing.assert_array_equal(outputs(graph, x, lines), truth.reshape(*x.shape[:2], -1))


@pytest.mark.parametrize("case", FLOAT)
def test_programs_on_real_numbers_with_sanitizers(tmp_path, case):
    graph = FLOAT[case]()
    x = drawn(graph, 12)
    checks = ("-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    lines, _ = run_program(program(graph, x), tmp_path, ("gcc", *checks))
    truth = Reference(graph).run(x).outputs.reshape(*x.shape[:2], -1)
    np.testing.assert_allclose(outputs(graph, x, lines), truth, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_forty_networks_on_arm(tmp_path, seed):
    needs("arm-linux-gnueabihf-gcc", "qemu-arm")
    graph = integer_network(seed)
    x = spikes_for(graph, 200, 1, seed)
    lines, _ = run_program(program(graph, x), tmp_path, ARM, ("qemu-arm",))
    truth = Reference(graph).run(x).outputs
    np.testing.assert_array_equal(outputs(graph, x, lines), truth.reshape(*x.shape[:2], -1))
    assert int(lines[0]) == sizes(graph).ram


@pytest.mark.slow
@pytest.mark.parametrize("case", ["memory", "state-space", *FLOAT])
def test_other_models_on_arm(tmp_path, case):
    needs("arm-linux-gnueabihf-gcc", "qemu-arm")
    graph = {**WHOLE, **FLOAT}[case]()
    x = drawn(graph)
    lines, _ = run_program(program(graph, x), tmp_path, ARM, ("qemu-arm",))
    agree(graph, x, lines, whole=case in WHOLE)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["network-4", "memory", "zoo", "images-zero"])
def test_nothing_is_allocated(tmp_path, case):
    needs("valgrind")
    graph = {**WHOLE, **FLOAT}[case]()
    x = drawn(graph, 10)
    _, said = run_program(
        program(graph, x), tmp_path, ("gcc", "-O1", "-g"), ("valgrind", "--error-exitcode=1")
    )
    assert "total heap usage: 0 allocs, 0 frees, 0 bytes allocated" in said
    assert "ERROR SUMMARY: 0 errors" in said


def has_library(*compiler: str) -> bool:
    """Say whether a compiler is installed with its C library."""
    if shutil.which(compiler[0]) is None:
        return False
    asked = [*compiler, "-include", "string.h", "-x", "c", "-", "-o", "/dev/null"]
    return subprocess.run(asked, input=b"int main(void) {}", capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["cortex-m0", "cortex-m4"])
def test_the_code_of_a_small_chip_is_measured(chip):
    if not has_library("arm-none-eabi-gcc", "-c"):
        pytest.skip("arm-none-eabi-gcc and libnewlib-arm-none-eabi are not installed")
    compiler = f"arm-none-eabi-gcc -mcpu={chip} -mthumb"
    found = sizes(integer_network(0), compiler=compiler)
    assert found.compiler == compiler
    assert found.code is not None
    assert 300 < found.code < 3000


@pytest.mark.slow
@pytest.mark.parametrize("case", [*FLOAT, *WHOLE])
def test_other_models_with_pointers_of_32_bits(tmp_path, case):
    if not has_library("gcc", "-m32"):
        pytest.skip("gcc -m32 does not link here: install gcc-12-multilib")
    graph = {**WHOLE, **FLOAT}[case]()
    x = drawn(graph)
    lines, _ = run_program(program(graph, x), tmp_path, ("gcc", "-m32", "-msse2", "-mfpmath=sse", "-O2"))
    agree(graph, x, lines, whole=case in WHOLE)


def agree(graph: Graph, x, lines: list[str], *, whole: bool) -> None:
    """Assert that a program printed what the reference gives: exactly, or in 32 bits of real numbers."""
    truth = Reference(graph).run(x).outputs.reshape(*x.shape[:2], -1)
    size = 0 if whole else 1e-4
    np.testing.assert_allclose(outputs(graph, x, lines), truth, rtol=size, atol=size)


def test_the_header_is_for_cpp_too(tmp_path):
    needs("g++")
    model = build(state_space_network())
    (tmp_path / "model.c").write_text(model.source)
    (tmp_path / "model.h").write_text(model.header)
    (tmp_path / "main.cpp").write_text(
        '#include "model.h"\n#include "model.h"\n'
        "int main() { static model_state s; static int8_t in[MODEL_INPUTS]; static int32_t out[MODEL_OUTPUTS];\n"
        "model_init(&s); model_step(&s, in, out); return out[0] == 1 << 30; }\n"
    )
    for command in (
        ["gcc", *STRICT, "-c", "model.c", "-o", "model.o"],
        ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "main.cpp", "model.o", "-o", "it"],
        ["./it"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_header_says_what_it_is():
    graph = state_space_network().annotate(meta={"decision": "sum"})
    header = build(graph, "my net").header
    assert "#ifndef MY_NET_H" in header
    assert "void my_net_encode(const float in[2], int8_t out[2]);" in header
    assert "void my_net_step(my_net_state *state, const int8_t in[2], int32_t out[3]);" in header
    assert graph.digest in header
    assert "Decision over time: sum" in header
    assert "units of 2^-5" in header
    spiking = build(integer_network(0, "loihi2")).header
    assert "const uint8_t in[" in spiking
    assert "uint8_t out[" in spiking


def test_no_name_ends_a_comment(tmp_path):
    nodes = {
        "in": Input((3,)),
        "a */ b /* \\\n c": Scale(np.array([1.0, 2, 3])),
        "\u00e9": lif(),
        "out": Output(),
    }
    compiles(tmp_path, chain(nodes, meta={"decision": "*/ #error"}))


def test_names_that_c_does_not_allow():
    nodes: dict[str, Node] = {
        "in": Input((3,)),
        "a b": Scale(np.array([1.0, 2, 3])),
        "a_b": Scale(np.array([2.0, 1, 3])),
        "0 while": Linear(np.ones((2, 3))),
        "int": lif(),
        "out": Output(),
    }
    model = build(chain(nodes), "9 lives/of-a cat")
    assert model.name == "n9_lives_of_a_cat"
    assert "a_b_scale2" in model.source
    assert "n0_while_weight" in model.source


def test_weights_of_few_links_are_stored_sparse():
    dense = Linear(np.ones((64, 64), np.int8))
    loop = Linear((-3 * np.eye(64)).astype(np.int16))
    taken = [
        sizes(chain({"in": Input((64,), Kind.SPIKE), "w": weight, "out": Output()})).weights
        for weight in (dense, loop)
    ]
    assert taken == [64 * 64, 64 + 64 + 65]


def test_sizes_are_those_of_the_struct_and_the_tables(tmp_path):
    for i, case in enumerate([*WHOLE, "zoo", "images-zero"]):
        graph = {**WHOLE, **FLOAT}[case]()
        folder = tmp_path / str(i)
        folder.mkdir()
        found = sizes(graph)
        lines, _ = run_program(program(graph, drawn(graph, 1, 1)), folder, ("gcc", "-O0"))
        assert int(lines[0]) == found.ram
        assert found.state + found.work <= found.ram <= found.state + found.work + 16
        assert sum(found.constants.values()) == found.weights
        assert sum(found.members.values()) == found.state + found.work
        assert found.code is not None
        assert 0 < found.code < 20_000
        assert found.flash == found.weights + found.code
        assert found.to_json()["ram"] == found.ram
        tables = re.findall(
            r"^static const (\w+) \w+\[(\d+)\]", program(graph, drawn(graph, 1, 1))["model.c"], re.M
        )
        size = {"int8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4, "uint8_t": 1}
        assert sum(size[kind] * int(count) for kind, count in tables) == found.weights


def test_work_arrays_are_used_again():
    nodes: dict[str, Node] = {"in": Input((100,), Kind.SPIKE)}
    for i in range(6):
        nodes[f"w{i}"] = Linear(np.ones((100, 100), np.int8))
        nodes[f"n{i}"] = IntegerLIF(beta=np.int32(100), threshold=np.int32(5), trained_reset="zero", bits=16)
    found = sizes(chain({**nodes, "out": Output()}))
    assert found.work <= 2 * (200 + 100) + 200
    assert found.state == 6 * (200 + 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("256K", 2**18), ("64 KiB", 2**16), ("1M", 2**20), (512, 512), ("100b", 100), ("2mb", 2**21)],
)
def test_sizes_are_read(text, size):
    assert parsed(text) == size


@pytest.mark.parametrize("text", ["", "K", "-3K", "1.5M", "10G", None])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidInput, match="wanted a number of bytes"):
        parsed(text)


def test_a_budget_names_what_is_too_much_and_writes_nothing(tmp_path):
    graph = integer_network(1)
    needed = sizes(graph)
    emit(graph, tmp_path / "fits.c", flash=needed.flash, ram=f"{needed.ram}")
    with pytest.raises(
        Unsupported, match=rf"{needed.ram:,} bytes of memory .* 1 more .* the largest: \w+"
    ) as ram:
        emit(graph, tmp_path / "ram.c", ram=needed.ram - 1)
    assert "flash" not in str(ram.value)
    with pytest.raises(Unsupported, match=r"bytes of flash .* 7 more .* the largest: fc\d \d+") as flash:
        emit(graph, tmp_path / "flash.c", flash=needed.flash - 7, ram=needed.ram)
    assert "memory" not in str(flash.value)
    assert {path.name for path in tmp_path.iterdir()} == {"fits.c", "fits.h"}


def test_the_report_says_what_each_part_takes():
    graph = integer_network(1)
    found, needed = report(graph, ram="1K"), sizes(graph)
    assert not found.problems
    assert [row[0] for row in found.rows][-1] == "all"
    assert found.rows[-1] == ("all", f"{needed.flash:,}", f"{needed.ram:,}")
    for column in (1, 2):
        counted = [int(row[column].replace(",", "")) for row in found.rows]
        assert sum(counted[:-1]) == counted[-1]
    assert found.numbers == needed.to_json()
    assert sizes(graph, compiler="gcc -m64 -O3").compiler == "gcc -m64 -O3"
    over = report(graph, flash=10, ram="10")
    assert len(over.problems) == 2


def test_a_budget_of_flash_needs_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    assert sizes(integer_network(0)).code is None
    with pytest.raises(MissingDependency, match="A budget of flash counts the code"):
        emit(integer_network(0), tmp_path / "it.c", flash="1M")
    emit(integer_network(0), tmp_path / "it.c", ram="1M")


def test_files_are_written_together(tmp_path):
    graph = feed_forward(dtype=np.float32)
    TARGET.emit(graph, tmp_path / "my-model.c")
    assert {path.name for path in tmp_path.iterdir()} == {"my-model.c", "my-model.h"}
    assert '#include "my-model.h"' in (tmp_path / "my-model.c").read_text()
    subprocess.run(["gcc", *STRICT, "-c", "my-model.c"], cwd=tmp_path, check=True)
    with pytest.raises(InvalidInput, match=r"name it NAME\.c"):
        emit(graph, tmp_path / "model.cpp")
    with pytest.raises(InvalidInput, match="does not exist"):
        emit(graph, tmp_path / "nowhere" / "model.c")


def test_what_has_no_form_in_c_is_refused_with_the_reason(tmp_path):
    neuron = LIFScan(beta=np.float32(0.9), threshold=np.float32(1))
    graph = chain({"in": Input((4,)), "n": neuron, "after": Scale(np.float32(2)), "out": Output()})
    assert list(refusals(graph)) == ["n"]
    with pytest.raises(
        Unsupported, match="The target c cannot express 1 of 4 nodes. LIFScan 'n': .* run unroll"
    ):
        emit(graph, tmp_path / "it.c")
    assert not list(tmp_path.iterdir())
    assert refusals(zoo()) == {}


def test_layers_at_rest_are_passed_over(tmp_path):
    rng = np.random.default_rng(0)
    shared = {"beta": np.int32(3000), "threshold": np.int32(90), "trained_reset": "zero"}
    graph = chain(
        {
            "in": Input((10,), Kind.SPIKE),
            "w": Linear(rng.integers(-50, 90, (12, 10)).astype(np.int8)),
            "a": IntegerLIF(**shared),
            "v": Linear(rng.integers(-50, 90, (5, 12)).astype(np.int8)),
            "b": IntegerCubaLIF(alpha=np.int32(2000), **shared),
            "out": Output(),
        }
    )
    model = build(graph)
    assert model.program.resting == ["s->a_awake", "s->b_awake"]
    assert "if (!(in_n == 0) || s->a_awake) {" in model.source
    x = spikes_for(graph, 200, 1)
    x[20:180] = 0
    lines, _ = run_program(program(graph, x), tmp_path, ("gcc", "-O1"))
    truth = Reference(graph).run(x)
    assert truth.outputs[:20].any()
    assert not truth.outputs[60:180].any()
    assert truth.outputs[180:].any()
    assert not Reference(graph).run(x[:180]).state["b.u"].any()
    np.testing.assert_array_equal(outputs(graph, x, lines), truth.outputs)


def test_every_node_has_a_form_in_c():
    for case, make in itertools.chain(CASES.items(), WHOLE.items()):
        assert refusals(make()) == {}, case


def test_products_of_spikes_are_spikes():
    nodes: dict[str, Node] = {
        "in": Input((6,), Kind.SPIKE),
        "a": Linear(np.eye(6, dtype=np.int8)),
        "n": IntegerLIF(beta=np.int32(0), threshold=np.int32(0), trained_reset="zero"),
        "both": Multiply(),
        "w": Linear(np.arange(12, dtype=np.int8).reshape(2, 6)),
        "out": Output(),
    }
    pairs = [("in", "a"), ("a", "n"), ("both", "w"), ("w", "out")]
    edges = [*(Edge(*pair) for pair in pairs), Edge("n", "both", "a"), Edge("in", "both", "b")]
    assert refusals(Graph(nodes, edges)) == {}
