"""How many images of rooms are made in a second of one processor's time: python benchmarks/rooms.py."""

from __future__ import annotations

import time

from isonomy.bench.data.rooms.sample import generate

COUNTS = {(64, 64): 400, (96, 128): 200, (288, 384): 40}


def main() -> None:
    generate(0, (64, 64))  # what numpy does at first use is not counted
    print("| size | images per processor second |\n|---|---|")
    for size, count in COUNTS.items():
        start = time.process_time()
        for number in range(count):
            generate(number, size)
        print(f"| {size[0]} x {size[1]} | {count / (time.process_time() - start):.0f} |")


if __name__ == "__main__":
    main()
