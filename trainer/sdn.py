"""Train, judge, store and load surrogate dynamic networks: `unscan train-sdn`.

The network learns by example what the exact neuron holds: currents drawn from N(0, 1), the neuron run on them, and the
mean squared error between the prediction and tau u_{t-1}. Source: papers/003, "Training and Evaluation of SDN", and
supplement, Figure 2. What differs from there: every step draws new sequences, none is seen twice; and of several
networks that start, the one that does best in a short trial goes on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.neurons.surrogate_network import SHAPES, WIDTH, WINDOW, SurrogateNetwork, windows
from unscan.trainer.recurrence.fused import lif
from unscan.trainer.recurrence.naive import Firing

SHIPPED = Path(__file__).parent / "weights" / "sdn.safetensors"
FORMAT = 1
STEPS = 1024
EPOCH = 100_000  # sequences
_BATCH, _AT_ONCE = 16, 64  # sequences of a step; and drawn together, which is cheaper
_CANDIDATES, _TRIAL = (
    4,
    0.02,
)  # networks that start, and the share of the training after which the best goes on
_STANDARD, _STRESS = (0.0, 1.0), (0.88, 0.02)
INPUTS: tuple[tuple[float, float], ...] = (
    _STANDARD, _STRESS, (0.5, 0.5), (0.5, 1.0), (0.88, 0.1), (0.88, 0.5), (1.0, 0.02), (1.0, 1.0), (-1.0, 1.0),
    (0.0, 0.5), (0.0, 2.0), (0.0, 4.0),
)  # fmt: skip


@dataclass(frozen=True)
class Examples:
    """Currents and what the exact neuron made of them: its leak tau u_{t-1} and its spikes, each (T, B)."""

    currents: Tensor
    leak: Tensor
    spikes: Tensor


@dataclass(frozen=True)
class Agreement:
    """How a network's spikes on currents of N(mean, deviation) compare with those of the exact neuron.

    positions: steps compared. rate: exact spikes per step. accuracy: share of steps that are equal. precision and
    recall: of the network's spikes and of the exact ones, the share that the other fired too; f1 joins them; nan where
    there is nothing to divide by. error: root of the mean squared error of the prediction.
    """

    mean: float
    deviation: float
    positions: int
    rate: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    error: float


class TrainingForm(nn.Module):
    """The network as it is trained, before anything is fused.

        h = relu(norm1(W (e I_{t-8}, ..., e I_{t-1}) + b))        g = relu(norm2(W2 h + b2) + h)        p_t = w3 g + b3

    with e (8,) the encoder, one number for each feature, and norm a batch norm over all steps and lanes. It is
    Conv1d(1, 8, 1, no bias), Conv1d(8, 8, 8, groups 8, pad 8) kept to its first T steps, batch norm; Conv1d(8, 8, 1),
    batch norm; Conv1d(8, 1, 1), written as matrix products. Source: papers/003, supplement, Figure 2a.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        super().__init__()

        def drawn(*shape: int, inputs: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) * inputs**-0.5)

        self.encoder = drawn(WIDTH, inputs=1)
        self.temporal, self.temporal_bias = drawn(WIDTH, WINDOW, inputs=WINDOW), drawn(WIDTH, inputs=WINDOW)
        self.temporal_norm = nn.BatchNorm1d(WIDTH)
        self.mixing, self.mixing_bias = drawn(WIDTH, WIDTH, inputs=WIDTH), drawn(WIDTH, inputs=WIDTH)
        self.mixing_norm = nn.BatchNorm1d(WIDTH)
        self.readout, self.readout_bias = drawn(WIDTH, inputs=WIDTH), drawn(1, inputs=WIDTH)

    def forward(self, currents: Tensor) -> Tensor:
        """Predict all steps of sequences that start from zeros: (T, ...) -> (T, ...)."""
        seen = windows(currents, currents.new_zeros(WINDOW, *currents.shape[1:]))
        reads = torch.addmm(self.temporal_bias[:, None], self.encoder[:, None] * self.temporal, seen)
        hidden = self.temporal_norm(reads[None])[0].relu()
        mixed = torch.addmm(self.mixing_bias[:, None], self.mixing, hidden)
        mixed = (self.mixing_norm(mixed[None])[0] + hidden).relu()
        predicted: Tensor = self.readout @ mixed + self.readout_bias
        return predicted.view(currents.shape)


def fuse(trained: TrainingForm, tau: float) -> SurrogateNetwork:
    """Fold both batch norms and the encoder into the products they stand next to, in float64: 153 numbers.

    A norm maps y to a y + c with a = weight / sqrt(variance + eps) and c = bias - a mean, so a product W, b before it
    becomes a W, a b + c. Equals the training form in evaluation mode up to rounding.
    """
    fused = SurrogateNetwork(tau)
    with torch.no_grad():
        for name, norm in (("temporal", trained.temporal_norm), ("mixing", trained.mixing_norm)):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            a = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            c = norm.bias.double() - a * norm.running_mean.double()
            product = getattr(trained, name).double()
            if name == "temporal":
                product = trained.encoder.double()[:, None] * product
            getattr(fused, name).copy_(a[:, None] * product)
            getattr(fused, f"{name}_bias").copy_(a * getattr(trained, f"{name}_bias").double() + c)
        fused.readout.copy_(trained.readout)  # type: ignore[operator]
        fused.readout_bias.copy_(trained.readout_bias)  # type: ignore[operator]
    return fused


def draw(
    count: int,
    tau: float,
    generator: torch.Generator,
    *,
    mean: float = 0.0,
    deviation: float = 1.0,
    steps: int = STEPS,
) -> Examples:
    """Draw `count` sequences of currents from N(mean, deviation) and run the exact neuron on them.

    The neuron: u' = tau u + I, s = H(u' - 1), u = u' (1 - s), from zeros.
    """
    currents = torch.randn(steps, count, generator=generator) * deviation + mean
    spikes, membrane, _ = lif(
        currents, None, torch.tensor(tau), torch.tensor(1.0), Firing("zero"), state_after=False
    )
    assert membrane is not None
    held = tau * membrane[:-1] * (1 - spikes[:-1])
    return Examples(currents, torch.cat((torch.zeros(1, count), held)), spikes)


def train_sdn(
    tau: float = 0.125,
    *,
    epochs: float = 10.0,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> SurrogateNetwork:
    """Train a network for the neuron of one decay, on one thread, and return it frozen and fused.

    An epoch is 100 000 sequences of 1024 steps, 16 at a time, all new; AdamW at 0.01 with weight decay 0.01. Four
    networks start; after 2 % of the steps the one of the lowest loss goes on, now along a cosine to 0. The same seed
    on the same machine gives the same network. `progress` is called every 100 steps, and at the end, with the step,
    the number of steps, and the last loss.
    Raises `InvalidInput` for a tau outside 0 to 1 and for epochs that are not positive.
    """
    if not 0 <= tau <= 1:
        raise InvalidInput(f"train-sdn: tau is {tau}, but a decay is from 0 to 1.")
    if not 0 < epochs < float("inf"):
        raise InvalidInput(
            f"train-sdn: epochs is {epochs}, but it must be a positive number; 10 is what was shipped."
        )
    total = max(1, round(epochs * EPOCH / _BATCH))
    first = round(total * _TRIAL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        learners = [_Learner(tau, seed * _CANDIDATES + k) for k in range(_CANDIDATES if first else 1)]
        for learner in learners:
            for _ in range(first):
                learner.advance()
        best = min(learners, key=lambda learner: learner.recent)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(best.optimiser, total - first)
        for step in range(first + 1, total + 1):
            loss = best.advance()
            schedule.step()
            if progress and (step % 100 == 0 or step == total):
                progress(step, total, loss)
    finally:
        torch.set_num_threads(threads)
    return fuse(best.network.eval(), tau)


class _Learner:
    """A network in training, with the stream of examples that it sees."""

    def __init__(self, tau: float, seed: int) -> None:
        self.tau, self.generator = tau, torch.Generator().manual_seed(seed)
        self.network = TrainingForm(self.generator)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 0.01, weight_decay=0.01, fused=True)
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.recent = float("inf")  # the loss, averaged over some hundred steps

    def advance(self) -> float:
        """Take one step of training and return its loss."""
        if not self.batches:
            drawn = draw(_AT_ONCE, self.tau, self.generator)
            parts = [slice(start, start + _BATCH) for start in range(0, _AT_ONCE, _BATCH)]
            self.batches = [(drawn.currents[:, part], drawn.leak[:, part]) for part in parts]
        currents, leak = self.batches.pop()
        error = functional.mse_loss(self.network(currents), leak)
        self.optimiser.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        loss = error.item()
        self.recent = loss if self.recent == float("inf") else 0.99 * self.recent + 0.01 * loss
        return loss


def evaluate_sdn(
    network: SurrogateNetwork,
    *,
    inputs: Sequence[tuple[float, float]] = INPUTS,
    count: int = 10_000,
    seed: int = 1_000_000,
) -> list[Agreement]:
    """Compare a network's spikes with those of the exact neuron, on `count` new sequences of each (mean, deviation).

    Raises `InvalidInput` for a network without a tau.
    """
    if network.tau is None:
        raise InvalidInput(
            "This surrogate network was trained for no tau, so there is no neuron to compare it with."
        )
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for mean, deviation in inputs:
        sums = torch.zeros(5, dtype=torch.float64)
        for start in range(0, count, 1000):
            exact = draw(min(1000, count - start), network.tau, generator, mean=mean, deviation=deviation)
            membrane = network.membrane(exact.currents)
            fired, wanted = membrane >= 1, exact.spikes > 0
            away = membrane - exact.currents - exact.leak
            sums += torch.stack(
                [
                    v.sum(dtype=torch.float64)
                    for v in (fired, wanted, fired & wanted, fired == wanted, away * away)
                ]
            )
        ours, theirs, both, equal, squares = sums.tolist()
        positions = count * STEPS
        rows.append(
            Agreement(
                mean, deviation, positions, theirs / positions, equal / positions, _share(both, ours),
                _share(both, theirs), _share(2 * both, ours + theirs), (squares / positions) ** 0.5,
            )
        )  # fmt: skip
    return rows


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def save_sdn(
    path: Path | str, network: SurrogateNetwork, *, command: str, seed: int, figures: Sequence[Agreement]
) -> None:
    """Write a network with its tau, the command and seed that made it, and its figures; never half a file.

    Raises `InvalidInput` for a network without a tau, and where the file cannot be written.
    """
    path = Path(path)
    if network.tau is None:
        raise InvalidInput(
            "This surrogate network was trained for no tau; only one from train_sdn can be saved."
        )
    numbers = {name: getattr(network, name).detach().cpu().contiguous() for name in SHAPES}
    told = {
        "format": str(FORMAT),
        "tau": repr(network.tau),
        "command": command,
        "seed": str(seed),
        "figures": json.dumps([asdict(row) for row in figures]),
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(save(numbers, {**told, "sha256": _checksum(numbers, told)}))
        os.replace(draft, path)
    except OSError as error:
        raise InvalidInput(
            f"Cannot write the surrogate network to {path}: {error.strerror}. Choose a file in a folder that "
            f"exists and that you may write to."
        ) from None
    finally:
        draft.unlink(missing_ok=True)


def load_sdn(path: Path | str | None = None) -> SurrogateNetwork:
    """Read a network that `save_sdn` wrote, or the one that comes with unscan; it is frozen.

    Raises `InvalidInput` where there is no such file, `DamagedFile` where it is not a surrogate network, not whole,
    altered, or from a newer version.
    """
    numbers, told, _ = _read(path)
    network = SurrogateNetwork(float(told["tau"]))
    network.load_state_dict(numbers)
    return network


def read_figures(path: Path | str | None = None) -> tuple[dict[str, str], list[Agreement]]:
    """Read what a file says of its network: tau, command and seed, and its agreement. Raises as `load_sdn`."""
    _, told, figures = _read(path)
    return {name: told[name] for name in ("tau", "command", "seed")}, figures


def _kind(shape: Sequence[int], dtype: torch.dtype) -> str:
    return f"{dtype} {tuple(shape)}"


def _read(path: Path | str | None) -> tuple[dict[str, Tensor], dict[str, str], list[Agreement]]:
    path = SHIPPED if path is None else Path(path)
    again = "Copy it again, or make one with `unscan train-sdn --out FILE`."
    if not path.is_file():
        raise InvalidInput(
            f"There is no surrogate network {path}; `unscan train-sdn --out {path}` makes one."
        )
    try:
        with safe_open(path, framework="pt") as file:
            told = dict(file.metadata() or {})
            numbers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(f"{path} is not a whole safetensors file ({error}). {again}") from None
    missing = [name for name in ("format", "tau", "command", "seed", "figures", "sha256") if name not in told]
    if missing:
        raise DamagedFile(
            f"{path} is not a surrogate network: its header lacks {', '.join(missing)}. {again}"
        )
    if not told["format"].isdecimal() or int(told["format"]) > FORMAT:
        raise DamagedFile(
            f"{path} has format {told['format']!r}, and this unscan reads up to {FORMAT}: upgrade unscan. {again}"
        )
    for name in sorted(SHAPES.keys() | numbers.keys()):
        got = _kind(numbers[name].shape, numbers[name].dtype) if name in numbers else "nothing"
        wanted = _kind(SHAPES[name], torch.float32) if name in SHAPES else "nothing"
        if got != wanted:
            raise DamagedFile(f"{path}: the tensor {name!r} is {got}, but it should be {wanted}. {again}")
        if not numbers[name].isfinite().all():
            raise DamagedFile(f"{path}: the tensor {name!r} holds NaN or infinity. {again}")
    sha = told.pop("sha256")
    if sha != _checksum(numbers, told):
        raise DamagedFile(
            f"{path} was altered: its content does not have the checksum in its header. {again}"
        )
    try:
        tau_fits = 0 <= float(told["tau"]) <= 1
    except ValueError:
        tau_fits = False
    if not tau_fits:
        raise DamagedFile(f"{path}: tau is {told['tau']!r}, but a decay is a number from 0 to 1. {again}")
    try:
        figures = [Agreement(**row) for row in json.loads(told["figures"])]
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{path}: the figures in its header cannot be read ({error}). {again}") from None
    return numbers, told, figures


def _checksum(numbers: Mapping[str, Tensor], told: Mapping[str, str]) -> str:
    sha = hashlib.sha256(json.dumps(dict(told), sort_keys=True).encode())
    for name in sorted(numbers):
        sha.update(f"{name} {numbers[name].dtype}".encode())
        sha.update(numbers[name].numpy().tobytes())
    return sha.hexdigest()
