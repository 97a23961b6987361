"""Draws docs/images/schedules.png and prints the table of schedules of docs/strategies.md.

python tools/draw_schedules.py [--stages=4] [--microbatches=4] [--folder=docs/images]
"""

import argparse
from pathlib import Path

from jaxdna.strategies import schedules
from jaxdna.strategies.schedule_view import draw


def main() -> None:
    """Prints a Markdown table and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--microbatches", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    stages, pieces = arguments.stages, arguments.microbatches
    bound = schedules.ideal_bubble(stages, pieces)
    print(f"{stages} stages, {pieces} micro-batches, (S-1)/(M+S-1) = {bound:.1%}\n")
    print("| schedule | idle, one batch | idle, 20 batches | staleness | versions | inputs kept |")
    print("| --- | --- | --- | --- | --- | --- |")
    pictures = {}
    for name in schedules.SCHEDULES:
        many = schedules.timetable(name, stages, pieces, 20)
        one = schedules.timetable(name, stages, pieces, 1)
        stale = [max(seen) for seen in schedules.staleness(many, stages, pieces)]
        cells = [
            name,
            f"{schedules.bubble(one, stages):.1%}",
            f"{schedules.bubble(many, stages):.1%}",
            *(
                " ".join(map(str, numbers))
                for numbers in (
                    stale,
                    schedules.most_versions(many, stages),
                    schedules.most_in_flight(many, stages),
                )
            ),
        ]
        print(f"| {' | '.join(cells)} |")
        batches = 1 if name == "sequential" else 2  # as long as the others with two
        pictures[name] = schedules.timetable(name, stages, pieces, batches)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    draw(arguments.folder / "schedules.png", pictures, stages, pieces)


if __name__ == "__main__":
    main()
