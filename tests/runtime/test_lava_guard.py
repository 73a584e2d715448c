"""Ways to break Lava: each ends in seconds with one clear error, and leaves no process and no shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.targets.lava.needed import needs_lava
from unscan.compiler.errors import MissingDependency, UnscanError
from unscan.runtime.lava import guard
from unscan.runtime.lava.environment import REQUIREMENTS, Environment
from unscan.runtime.lava.sessions import MEMORY, PROC, memory

pytestmark = [needs_lava, pytest.mark.skipif(not PROC.is_dir(), reason="looks for what is left under /proc")]

HEAD = """
    import os, signal, sys, time
    from pathlib import Path
    import numpy as np
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

    class Sender(AbstractProcess):
        def __init__(self):
            super().__init__()
            self.out = OutPort(shape=(2,))

    class Receiver(AbstractProcess):
        def __init__(self):
            super().__init__()
            self.inp = InPort(shape=(2,))

    @implements(proc=Receiver, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class PyReceiver(PyLoihiProcessModel):
        inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
        def run_spk(self):
            self.inp.recv()

    @implements(proc=Sender, protocol=LoihiProtocol)
    @requires(CPU)
    @tag("fixed_pt")
    class PySender(PyLoihiProcessModel):
        out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
"""
RUN = """
    sender, receiver = Sender(), Receiver()
    sender.out.connect(receiver.inp)
    sender.run(condition=RunSteps(num_steps=3), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    sender.stop()
"""
SEND = "self.out.send(np.zeros(2, np.int32))"


def script(folder: Path, body: str, step: str = SEND) -> Path:
    """A script whose sending process runs `step` at each step, and has `body` in its model."""
    text = textwrap.dedent(HEAD) + textwrap.indent(textwrap.dedent(body), "    ")
    text += f"\n    def run_spk(self):\n        {step}\n" + textwrap.dedent(RUN)
    path = folder / "script.py"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    before = set(MEMORY.iterdir())
    yield
    left = [pid for pid in _pids() if str(tmp_path).encode() in _command(pid)]
    assert not left, "processes are left"
    orphans = set(MEMORY.iterdir()) - before - memory(_pids())
    assert not orphans, "shared memory is left"


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()]


def _command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_script_that_ends_well_leaves_its_result(tmp_path: Path) -> None:
    body = script(tmp_path, "").read_text() + "\nPath(sys.argv[1], 'result.txt').write_text('done')\n"
    (tmp_path / "script.py").write_text(body)
    guard.run(tmp_path / "script.py", tmp_path, seconds=20)
    assert (tmp_path / "result.txt").read_text() == "done"


@pytest.mark.slow
def test_a_forgotten_stop_costs_no_result(tmp_path: Path) -> None:
    path = script(tmp_path, "")
    path.write_text(path.read_text().replace("sender.stop()", "Path(sys.argv[1], 'result.txt').touch()"))
    guard.run(path, tmp_path, seconds=20)
    assert (tmp_path / "result.txt").exists()


INIT = """
def __init__(self, proc_params):
    super().__init__(proc_params)
    raise ValueError("no such model")
"""
QUICK = ("exception in run_spk", "actor is killed")
BREAKS = {
    "exception in run_spk": ("", "raise ValueError('step %d failed' % self.time_step)", "step 1 failed"),
    "exception in a model's __init__": (INIT, SEND, "no such model"),
    "actor ends itself": ("", "os._exit(3)", "exit code 3"),
    "actor is killed": ("", "os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "actor crashes": ("", "os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "a wrongly shaped send": ("", "self.out.send(np.zeros(3, np.int32))", "data.shape"),
    "interpreter crashes": ("", "os.kill(os.getppid(), signal.SIGSEGV); time.sleep(99)", "signal 11"),
}


@pytest.mark.parametrize(
    "how", [how if how in QUICK else pytest.param(how, marks=pytest.mark.slow) for how in BREAKS]
)
def test_a_broken_process_is_an_error_that_says_where(tmp_path: Path, how: str) -> None:
    body, step, said = BREAKS[how]
    before = time.monotonic()
    with pytest.raises(guard.LavaFailed, match=said):
        guard.run(script(tmp_path, body, step), tmp_path, seconds=60)
    assert time.monotonic() - before < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    ["pass", "time.sleep(99)", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"],
    ids=["a send that never comes", "endless step", "deaf to SIGTERM"],
)
def test_a_run_without_end_ends_at_its_time(tmp_path: Path, step: str) -> None:
    with pytest.raises(guard.LavaFailed, match="still running after 4 seconds"):
        guard.run(script(tmp_path, "", step), tmp_path, seconds=4)


def test_an_exception_in_the_script_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("import json\njson.loads('{')\n")
    with pytest.raises(guard.LavaFailed, match="JSONDecodeError"):
        guard.run(path, tmp_path, seconds=20)


def test_a_missing_script_is_shown(tmp_path: Path) -> None:
    with pytest.raises(guard.LavaFailed, match="No such file"):
        guard.run(tmp_path / "none.py", tmp_path, seconds=20)


def test_a_missing_environment_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="unscan lava install"):
        guard.run(tmp_path / "none.py", tmp_path, seconds=20, within=Environment(tmp_path / "none"))


def test_an_environment_without_lava_names_the_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = Environment(tmp_path / "bare")
    with pytest.raises(MissingDependency, match="was not made by"):
        guard.run(tmp_path / "none.py", tmp_path, seconds=20, within=bare)
    bare.made.write_text(REQUIREMENTS.read_text())
    (tmp_path / "script.py").write_text("")
    with pytest.raises(guard.LavaFailed, match="No module named 'lava'"):
        guard.run(tmp_path / "script.py", tmp_path, seconds=20, within=bare)


@pytest.mark.slow
def test_an_interrupt_ends_the_run(tmp_path: Path) -> None:
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        guard.run(script(tmp_path, "", "time.sleep(99)"), tmp_path, seconds=60)
    timer.join()


@pytest.mark.slow
def test_a_run_ends_with_the_one_who_asked_for_it(tmp_path: Path) -> None:
    path = script(tmp_path, "", "time.sleep(99)")
    ask = f"from pathlib import Path; from unscan.runtime.lava import guard; guard.run(Path({str(path)!r}), "
    ask += f"Path({str(tmp_path)!r}), seconds=60)"
    asked = subprocess.Popen([sys.executable, "-c", ask], cwd=Path(__file__).parents[2])
    time.sleep(4)
    asked.kill()
    asked.wait()
    until = time.monotonic() + 10
    while any(str(tmp_path).encode() in _command(pid) for pid in _pids()) and time.monotonic() < until:
        time.sleep(0.1)


def test_a_failure_is_an_error_of_the_user() -> None:
    assert issubclass(guard.LavaFailed, UnscanError)
