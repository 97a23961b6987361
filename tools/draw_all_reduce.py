"""Draws docs/images/ring.svg and docs/images/hierarchical.svg, the pictures of docs/layouts.md.

The boxes are computed: each round passes on sets of summands as the algorithm passes on sums.

    python tools/draw_all_reduce.py
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CHUNKS = "abcd"
DEVICES = 4
COLUMNS, BLOCK = 4, 8.5  # rounds beside one another, and the height of such a row
WHOLE = frozenset(range(DEVICES))
Held = list[list[frozenset[int]]]  # [device][chunk]: whose summands are in it


def start() -> Held:
    """Every device holds its own summand of every chunk."""
    return [[frozenset([device])] * len(CHUNKS) for device in range(DEVICES)]


def ring_rounds() -> list[tuple[str, Held]]:
    """What everybody holds after the start, each reduce round and each gather round."""
    held = start()
    rounds = [("start", [row[:] for row in held])]
    for step in range(2 * (DEVICES - 1)):
        # The chunk that a device sends is the one that it finished last: one further left a round.
        sent = [(d, (d - step) % DEVICES, held[d][(d - step) % DEVICES]) for d in range(DEVICES)]
        for device, chunk, value in sent:
            right = (device + 1) % DEVICES
            reducing = step < DEVICES - 1
            held[right][chunk] = held[right][chunk] | value if reducing else value
        name = "reduce" if step < DEVICES - 1 else "gather"
        rounds.append((f"{name} {step % (DEVICES - 1) + 1}", [row[:] for row in held]))
    assert all(chunk == WHOLE for row in held for chunk in row)
    return rounds


def hierarchical_rounds() -> list[tuple[str, Held]]:
    """Two hosts of two devices: scatter inside, all-reduce between, gather inside."""
    held = start()
    rounds = [("start", [row[:] for row in held])]
    hosts = [(0, 1), (2, 3)]
    for host in hosts:
        sums = [frozenset(host)] * len(CHUNKS)
        for place, device in enumerate(host):
            held[device] = [sums[c] if c // 2 == place else frozenset() for c in range(4)]
    rounds.append(("reduce-scatter\ninside", [row[:] for row in held]))
    for place in range(2):
        pair = [host[place] for host in hosts]
        for chunk in range(2 * place, 2 * place + 2):
            total = frozenset().union(*(held[d][chunk] for d in pair))
            for device in pair:
                held[device][chunk] = total
    rounds.append(("all-reduce\nbetween hosts", [row[:] for row in held]))
    for host in hosts:
        for chunk in range(4):
            owner = host[chunk // 2]
            for device in host:
                held[device][chunk] = held[owner][chunk]
    rounds.append(("all-gather\ninside", [row[:] for row in held]))
    assert all(chunk == WHOLE for row in held for chunk in row)
    return rounds


def draw(axes: Axes, rounds: list[tuple[str, Held]]) -> None:
    """One column of boxes per round, one row per device; darker means more summands."""
    for number, (name, held) in enumerate(rounds):
        column, below = number % COLUMNS, number // COLUMNS * BLOCK
        axes.text(column * 5 + 2, 0.3 - below, name, ha="center", va="bottom", fontsize=11)
        for device, chunks in enumerate(held):
            for place, summands in enumerate(chunks):
                x, y = column * 5 + place, -device * 1.5 - 1 - below
                share = len(summands) / DEVICES
                colour = (1 - 0.75 * share, 1 - 0.45 * share, 1 - 0.15 * share)
                edge = {"linewidth": 0.8, "edgecolor": "0.3"}
                axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, **edge))
                members = "".join(map(str, sorted(summands)))
                text = "Σ" if summands == WHOLE else members
                axes.text(x + 0.5, y + 0.5, f"{CHUNKS[place]}\n{text}", ha="center", va="center",
                          fontsize=9)  # fmt: skip
    blocks = -(-len(rounds) // COLUMNS)
    for place in range(DEVICES * blocks):
        block, device = divmod(place, DEVICES)
        y = -device * 1.5 - 0.5 - block * BLOCK
        axes.text(-0.4, y, f"device {device}", ha="right", va="center", fontsize=11)
    axes.set(xlim=(-3.2, COLUMNS * 5 - 1), ylim=(0.8 - blocks * BLOCK, 2), aspect="equal")
    axes.axis("off")


def main() -> None:
    """Draws both pictures."""
    for name, rounds in (("ring", ring_rounds()), ("hierarchical", hierarchical_rounds())):
        blocks = -(-len(rounds) // COLUMNS)
        figure = Figure(figsize=(8.6, 3.3 * blocks), layout="constrained")
        draw(figure.add_subplot(), rounds)
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
