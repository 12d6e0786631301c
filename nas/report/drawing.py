"""Two drawings of a candidate as SVG: the network from sensors to logits, and the arena in time."""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.hardware.memory import MemoryPlan, lifetimes
from nas.network.graph import Graph
from nas.network.ops import Add, Op, size
from nas.report.format import esc, kilobytes, plural, shape
from nas.report.words import has_relu, sensors_of, title, weight_bits

BOX, TALL, GAP_X, GAP_Y = 172, 44, 26, 22
ARENA_WIDTH, ARENA_HEIGHT, LEFT, BOTTOM, TOP = 860, 300, 62, 34, 18
STEP_WIDTH = 38  # of an operator's step at least: a longer network has a wider drawing
LETTER, LINE = 5.9, 12  # a label's size


@dataclass(frozen=True)
class Place:
    """Left upper corner of a box."""

    x: float
    y: float


def flow_svg(graph: Graph) -> str:
    """Sensors at the top, the output at the bottom; a branch is a column."""
    places = _places(graph)
    width = max(place.x for place in places.values()) + BOX + GAP_X
    height = max(place.y for place in places.values()) + TALL + 6
    taken = set(places.values())
    lines = [
        _edge(places[name], places[op.name], taken, isinstance(op, Add))
        for op in graph.ops
        for name in dict.fromkeys(op.inputs)
    ]
    boxes = [_sensor_box(places[i.name], i.name, i.shape) for i in graph.inputs]
    boxes += [_op_box(places[op.name], op, graph) for op in graph.ops]
    return (
        f'<svg class="flow" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="The network from sensors to classes">'
        f"{''.join(lines)}{''.join(boxes)}</svg>"
    )


def _places(graph: Graph) -> dict[str, Place]:
    """Rows by the longest way from a sensor; columns by the sensors an operator sees."""
    rank = {source.name: 0 for source in graph.inputs}
    for op in graph.ops:
        rank[op.name] = 1 + max(rank[name] for name in op.inputs)
    wanted = _wanted_columns(graph, rank)
    rows: dict[int, list[str]] = {}
    for name in sorted(rank, key=lambda n: wanted[n]):
        rows.setdefault(rank[name], []).append(name)
    columns = {k: v for row in rows.values() for k, v in _spread(row, wanted).items()}
    first = min(columns.values())
    return {
        name: Place(
            4 + GAP_X + (columns[name] - first) * (BOX + GAP_X), 4 + rank[name] * (TALL + GAP_Y)
        )
        for name in rank
    }


def _wanted_columns(graph: Graph, rank: Mapping[str, int]) -> dict[str, float]:
    """A lane for each sensor, as wide as its widest row; where sensors meet, between the lanes."""
    sensors = sensors_of(graph)
    starts: dict[str, float] = {}
    wanted: dict[str, float] = {}
    free = 0.0
    for source in graph.inputs:
        lane = [op for op in graph.ops if sensors[op.name] == {source.name}]
        columns = {source.name: free}
        taken = {(0, free)}
        for op in lane:
            column = min(columns[name] for name in op.inputs)
            while (rank[op.name], column) in taken:
                column += 1
            columns[op.name] = column
            taken.add((rank[op.name], column))
        starts[source.name] = free
        free = max(columns.values()) + 1
        wanted |= columns
    for op in graph.ops:
        seen = sensors[op.name]
        wanted.setdefault(op.name, sum(starts[name] for name in seen) / len(seen))
    return wanted


def _spread(row: list[str], wanted: Mapping[str, float]) -> dict[str, float]:
    """Columns of one row: as wanted, but at least one apart."""
    placed: dict[str, float] = {}
    last = float("-inf")
    for name in row:
        last = placed[name] = max(wanted[name], last + 1)
    return placed


def _edge(start: Place, end: Place, taken: set[Place], to_sum: bool) -> str:
    x0, y0, x1, y1 = start.x + BOX / 2, start.y + TALL, end.x + BOX / 2, end.y
    bend = y1 - GAP_Y
    blocked = any(place.x == start.x and start.y < place.y < end.y for place in taken)
    if blocked and x0 == x1:  # around the boxes of its column: left to a sum, else right
        out = start.x if to_sum else start.x + BOX
        side = out + GAP_X * (-0.6 if to_sum else 0.6)
        path = f"M{out} {y0 - TALL / 2} H{side:.0f} V{y1 + TALL / 2} H{out}"
    elif blocked:
        side = start.x + BOX + GAP_X * 0.3
        path = f"M{start.x + BOX} {y0 - TALL / 2} H{side:.0f} V{bend}"
        path += f" C{side:.0f} {y1 - 6} {x1} {bend} {x1} {y1}"
    elif x0 == x1:
        path = f"M{x0} {y0} V{y1}"
    else:
        path = f"M{x0} {y0} V{bend} C{x0} {y1 - 6} {x1} {bend} {x1} {y1}"
    return f'<path class="edge" d="{path}"/>'


def _sensor_box(place: Place, name: str, form: tuple[int, ...]) -> str:
    return _box(place, "sensor", name, f"sensor · {shape(form)}", f"sensor {name}")


def _op_box(place: Place, op: Op, graph: Graph) -> str:
    bits = weight_bits(op)
    note = shape(graph.shapes[op.name]) + (" · ReLU" if has_relu(op) else "")
    kind = "layer" if bits else "plain"
    if op.name == graph.output:
        kind, note = f"{kind} output", f"{plural(size(graph.shapes[op.name]), 'logit')}"
    mark = ""
    if bits:
        x, y = place.x + BOX - 8, place.y + TALL - 10
        mark = f'<text class="bits" x="{x}" y="{y}" text-anchor="end">{bits} bit</text>'
    about = f"{op.name}: {graph.macs(op)} multiply-accumulates"
    return _box(place, kind, title(op, graph), note, about) + mark


def _box(place: Place, kind: str, head: str, note: str, about: str) -> str:
    cut = head if len(head) <= 26 else head[:25] + "…"
    return (
        f'<g class="{kind}"><title>{esc(about)}</title>'
        f'<rect x="{place.x}" y="{place.y}" width="{BOX}" height="{TALL}" rx="6"/>'
        f'<text class="head" x="{place.x + 10}" y="{place.y + 18}">{esc(cut)}</text>'
        f'<text class="note" x="{place.x + 10}" y="{place.y + 34}">{esc(note)}</text></g>'
    )


@dataclass(frozen=True)
class Scale:
    """Of the drawing of an arena: pixels a step and a byte."""

    width: float
    across: float
    up: float


def arena_svg(graph: Graph, plan: MemoryPlan) -> str:
    """Every tensor as a rectangle: steps to the right, bytes upwards."""
    arena = max(1, plan.arena_bytes)
    steps = len(plan.order) + 1
    width = max(ARENA_WIDTH, LEFT + 10 + steps * STEP_WIDTH)
    scale = Scale(width, (width - LEFT - 10) / steps, (ARENA_HEIGHT - BOTTOM - TOP) / arena)
    floor = ARENA_HEIGHT - BOTTOM
    parts = [_bytes_line(arena * share, arena, scale) for share in (0, 0.25, 0.5, 0.75, 1)]
    parts += [
        _tensor(name, span, graph, plan, scale) for name, span in lifetimes(graph, plan).items()
    ]
    for i, name in enumerate(("inputs", *plan.order)):
        x = LEFT + (i + 0.5) * scale.across
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{floor + 15}" text-anchor="middle">'
            f"<title>{esc(name)}</title>{i}</text>"
        )
    parts.append(f'<text class="tick" x="{LEFT}" y="{ARENA_HEIGHT - 4}">operator step</text>')
    return (
        f'<svg class="arena" viewBox="0 0 {width} {ARENA_HEIGHT}" style="min-width:{width}px" '
        f'role="img" aria-label="The arena over time">{"".join(parts)}</svg>'
    )


def _bytes_line(at: float, arena: int, scale: Scale) -> str:
    y = ARENA_HEIGHT - BOTTOM - at * scale.up
    kind = "grid peak" if at == arena else "grid"
    return (
        f'<line class="{kind}" x1="{LEFT}" x2="{scale.width - 10}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
        f"{kilobytes(at)}</text>"
    )


def _tensor(
    name: str, span: tuple[float, float], graph: Graph, plan: MemoryPlan, scale: Scale
) -> str:
    bytes_, offset = size(graph.shapes[name]), plan.offsets[name]
    x, wide = LEFT + span[0] * scale.across, (span[1] - span[0]) * scale.across
    y, tall = ARENA_HEIGHT - BOTTOM - (offset + bytes_) * scale.up, bytes_ * scale.up
    inputs = {source.name for source in graph.inputs}
    kind = "input" if name in inputs else "output" if name == graph.output else "middle"
    about = f"{name}: {bytes_} bytes from byte {offset} on, {shape(graph.shapes[name])}"
    return (
        f'<g class="{kind}"><title>{esc(about)}</title><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{wide:.1f}" height="{max(tall, 1):.1f}"/>{_label(name, x, y, wide, tall)}</g>'
    )


def _label(name: str, x: float, y: float, wide: float, tall: float) -> str:
    """The name along a rectangle, or up it, or cut off, or not at all, as there is room."""
    room = int((wide - 6) / LETTER)
    if tall < LINE or (len(name) > room and tall >= len(name) * LETTER + 6):
        if wide < LINE or tall < len(name) * LETTER + 6:
            return ""
        middle = x + wide / 2 + 3.5
        turn = f"rotate(-90 {middle:.1f} {y + tall - 4:.1f})"
        return (
            f'<text x="{middle:.1f}" y="{y + tall - 4:.1f}" transform="{turn}">{esc(name)}</text>'
        )
    if room < 4:
        return ""
    cut = name if len(name) <= room else name[: room - 1] + "…"
    return f'<text x="{x + 4:.1f}" y="{y + tall / 2 + 3.5:.1f}">{esc(cut)}</text>'
