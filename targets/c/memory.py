"""C for matrix memories: with a decay for each column kept as one number, dense, and on whole numbers."""

from __future__ import annotations

from unscan.compiler.fixed import Fixed
from unscan.compiler.nodes import AssociativeMemory, DeltaMemory, IntegerMemory, StoredMemory
from unscan.targets.c.integer import saturated
from unscan.targets.c.program import Program, emit_node
from unscan.targets.c.stateless import function
from unscan.targets.c.values import Numbers, Spikes, Value, Whole, format_type, index_type, literal


class Read:
    """What a memory reads of its firing entries: the list of them, or the queries' sums.

    Attributes:
        value: what leaves it.
        lines: run where entry e = (i, j) fires.
    """

    def __init__(self, program: Program, name: str, queries: int | None, q: Value | None) -> None:
        d, n = program.graph.membranes()[name]
        if queries is None:
            of, count = index_type(d * n), program.called(name, "n")
            spikes = Spikes(d * n, program.work(name, of, d * n), count)
            program.say(f"int32_t {count} = 0;")
            self.value: Value = spikes
            self.lines: tuple[str, ...] = (f"{spikes.list}[{count}++] = ({of})e;",)
            return
        assert q is not None
        kind, count = program.type_of(name), program.called(name, "fired")
        read = program.dense(name, q)
        y = Numbers(d * queries, kind, program.work(name, kind, d * queries), f"{count} == 0")
        program.say(f"int32_t {count} = 0;", program.cleared(y))
        self.value = y
        self.lines = (
            f"{count}++;",
            f"for (int32_t c = 0; c < {queries}; c++) {{",
            f"const int32_t to = e / {n} * {queries} + c;",
            f"{y.array}[to] = ({kind})({y.array}[to] + {read.array}[e % {n} * {queries} + c]);",
            "}",
        )


class Seen:
    """What a recording step leaves of a memory: every entry's membrane, and whether it fired."""

    def __init__(self, program: Program, name: str, of: str) -> None:
        shape = program.graph.membranes()[name]
        self.membrane = program.records(name, "membrane", of, shape)
        self.spikes = program.records(name, "spikes", "uint8_t", shape)

    def lines(self, reached: str) -> tuple[str, ...]:
        """Return the lines that record entry e."""
        if self.membrane is None:
            return ()
        return (f"{self.membrane}[e] = {reached};", f"{self.spikes}[e] = (uint8_t)fired;")


@emit_node.register
def _(
    node: IntegerMemory, program: Program, name: str, v: Value, k: Value, alpha: Value, q: Value | None = None
) -> Value:
    (d, n), width = program.graph.membranes()[name], Fixed(node.bits)
    store = format_type(width)
    most = {port: program.whole(name, port) for port in ("v", "k", "alpha")}
    values, keys, decays = (program.dense(name, each) for each in (v, k, alpha))
    S = program.state(name, "S", store, (d, n))
    seen, read = Seen(program, name, store), Read(program, name, node.queries, q)
    product = Whole(f"{values.array}[i]", most["v"]).times(str(2**node.shift), 2**node.shift)
    added = Whole("v", product.reach).times(f"{keys.array}[j]", most["k"])
    faded = Whole(f"{S}[e]", width.max).times(f"{decays.array}[j]", most["alpha"])
    total = Whole("r", width.max + added.reach)
    held = saturated(program, total, width)
    theta = int(node.threshold)
    kept = {"none": None, "subtract": f"{S}[e] = ({store})(r - {theta});", "zero": f"{S}[e] = 0;"}[node.reset]
    program.say(
        f"for (int32_t i = 0; i < {d}; i++) {{",
        f"const {product.type} v = {product.text};",
        f"for (int32_t j = 0; j < {n}; j++) {{",
        f"const int32_t e = i * {n} + j;",
        f"{total.type} r = ({total.type})({faded.text} / {2**node.decay_bits});",
        f"if (v != 0 && {keys.array}[j] != 0) {{",
        f"r += {added.text};",
        f"r = {held.text};",
        "}",
        f"{S}[e] = ({store})r;",
        f"const int fired = r > {theta};" if program.record else None,
        *seen.lines(f"({store})r"),
        f"if (r > {theta}) {{",
        *read.lines,
        kept,
        "}",
        "}",
        "}",
    )
    return read.value


class Stored:
    """A memory on real numbers while it is written.

    Dense, S itself is kept; with scalar decay M, and the accumulators A by which its columns are multiplied, and a
    bitmap of the entries that may fire: those that were written, and those that fired last.
    """

    def __init__(self, node: StoredMemory, program: Program, name: str, accumulators: int) -> None:
        self.node, self.program, self.name, self.real = node, program, name, program.real
        self.d, self.n = program.graph.membranes()[name]
        self.scalar = node.decay == "scalar"
        real, (d, n) = self.real, (self.d, self.n)
        self.S = program.state(name, "M" if self.scalar else "S", real, (d, n))
        self.theta = literal(node.threshold, real)
        if self.scalar:
            self.A = program.state(name, "A", real, (accumulators,))
            self.marks = program.member(name, "marks", "uint32_t", -(-d * n // 32))
            program.candidates.append((self.marks, d * n))
        self.seen = Seen(program, name, real)

    def scale(self, j: str) -> str:
        """Return the accumulator of column j."""
        single = next(kept for kept in self.program.kept if kept.key == f"{self.name}.A").shape == (1,)
        return f"{self.A}[0]" if single else f"{self.A}[{j}]"

    def reached(self) -> str:
        """Return the membrane of entry e = (i, j)."""
        at = f"e % {self.n}"
        return f"{self.S}[e] * {self.scale(at)}" if self.scalar else f"{self.S}[e]"

    def mark(self) -> str:
        """Return the line that makes entry e one that may fire."""
        return f"{self.marks}[e / 32] |= (uint32_t)1 << (e % 32);"

    def decay(self, alpha: str, count: int) -> None:
        """Write the decay of a step: of every entry, or of the accumulators."""
        real, total = self.real, self.d * self.n
        if not self.scalar:
            at = "0" if count == 1 else f"e % {self.n}"
            self.program.each(total, f"{self.S}[e] = {self.S}[e] * ({real}){alpha}[{at}];", index="e")
            return
        bound = literal(self.node.bound, real)
        self.program.each(
            count,
            f"const {real} alpha = ({real}){alpha}[j];",
            "const int odd = !(alpha >= 0 && alpha <= 1);",
            f"{self.A}[j] = {self.A}[j] * alpha;",
            f"const int low = {bound} > {self.A}[j];",
            "if (low || odd) {",
            f"for (int32_t e = j; e < {total}; e += {count}) {{",
            "if (low) {",
            f"{self.S}[e] = {self.S}[e] * {self.A}[j];",
            "}",
            "if (odd) {",
            self.mark(),
            "}",
            "}",
            "}",
            "if (low) {",
            f"{self.A}[j] = 1;",
            "}",
            index="j",
        )

    def look(self, lines: tuple[str, ...]) -> None:
        """Write the look at the entries that may fire: what is read of them, and their reset."""
        node, real, n, total = self.node, self.real, self.n, self.d * self.n
        over = f" / {self.scale(f'e % {n}')}" if self.scalar else ""
        kept = {
            "none": None,
            "subtract": f"{self.S}[e] = {self.S}[e] - {self.theta}{over};",
            "zero": f"{self.S}[e] = 0;",
        }[node.reset]
        if self.scalar and self.seen.membrane is not None:
            self.program.each(
                total,
                f"const {real} r = {self.reached()};",
                f"const int fired = r {node.fires} {self.theta};",
                *self.seen.lines("r"),
                index="e",
            )
        fires = (f"const {real} r = {self.reached()};", f"const int fired = r {node.fires} {self.theta};")
        if not self.scalar:
            rest = (*self.seen.lines("r"), "if (fired) {", *lines, kept, "}")
            self.program.say(f"for (int32_t e = 0; e < {total}; e++) {{", *fires, *rest, "}")
            return
        self.program.say(
            f"for (int32_t at = 0; at < {-(-total // 32)}; at++) {{",
            f"for (uint32_t left = {self.marks}[at], b = 0; left != 0; left >>= 1, b++) {{",
            "if ((left & 1) == 0) {",
            "continue;",
            "}",
            "const int32_t e = at * 32 + (int32_t)b;",
            *fires,
            "if (fired) {",
            *lines,
            kept,
            "}",
            "else {",
            f"{self.marks}[at] &= ~((uint32_t)1 << b);",
            "}",
            "}",
            "}",
        )


@emit_node.register
def _(
    node: AssociativeMemory,
    program: Program,
    name: str,
    v: Value,
    k: Value,
    alpha: Value,
    q: Value | None = None,
) -> Value:
    values, keys, decays = (program.dense(name, each) for each in (v, k, alpha))
    stored = Stored(node, program, name, keys.width)
    read = Read(program, name, node.queries, q)
    real, (d, n) = program.real, (stored.d, stored.n)
    stored.decay(decays.array, n)
    scaled = program.work(name, real, n)
    over = f" / {stored.scale('j')}" if stored.scalar else ""
    program.each(n, f"{scaled}[j] = ({real}){keys.array}[j]{over};", index="j")
    program.say(
        f"for (int32_t i = 0; i < {d}; i++) {{",
        f"const {real} v = ({real}){values.array}[i];",
        "if (v == 0) {",
        "continue;",
        "}",
        f"for (int32_t j = 0; j < {n}; j++) {{",
        f"if ({keys.array}[j] == 0) {{",
        "continue;",
        "}",
        f"const int32_t e = i * {n} + j;",
        f"{stored.S}[e] = {stored.S}[e] + v * {scaled}[j];",
        stored.mark() if stored.scalar else None,
        "}",
        "}",
    )
    stored.look(read.lines)
    return read.value


@emit_node.register
def _(
    node: DeltaMemory,
    program: Program,
    name: str,
    v: Value,
    k: Value,
    alpha: Value,
    beta: Value,
    q: Value | None = None,
) -> Value:
    values, keys, decays, gates = (program.dense(name, each) for each in (v, k, alpha, beta))
    stored = Stored(node, program, name, 1)
    read = Read(program, name, node.queries, q)
    real, (d, n) = program.real, (stored.d, stored.n)
    stored.decay(decays.array, 1)
    unit, length = program.work(name, real, n), program.called(name, "length")
    program.say(f"{real} {length} = 0;")
    program.each(n, f"{length} += ({real}){keys.array}[j] * ({real}){keys.array}[j];", index="j")
    program.say(f"{length} = {function(real, 'sqrt')}({length});")
    small = literal(1e-12, real)
    program.each(n, f"{unit}[j] = {length} > {small} ? ({real}){keys.array}[j] / {length} : 0;", index="j")
    times, over = (f"{stored.A}[0] * ", f" / {stored.A}[0]") if stored.scalar else ("", "")
    program.say(
        f"for (int32_t i = 0; i < {d}; i++) {{",
        f"{real} found = 0;",
        f"for (int32_t j = 0; j < {n}; j++) {{",
        f"found += {stored.S}[i * {n} + j] * {unit}[j];",
        "}",
        f"const {real} w = ({real}){gates.array}[0] * (({real}){values.array}[i] - {times}found){over};",
        f"for (int32_t j = 0; j < {n}; j++) {{",
        f"if ({unit}[j] == 0) {{",
        "continue;",
        "}",
        f"const int32_t e = i * {n} + j;",
        f"{stored.S}[e] = {stored.S}[e] + w * {unit}[j];",
        stored.mark() if stored.scalar else None,
        "}",
        "}",
    )
    stored.look(read.lines)
    return read.value
