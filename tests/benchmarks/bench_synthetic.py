"""Prints how many synthetic scenes one core draws in a second.

Run: OMP_NUM_THREADS=1 python tests/benchmarks/bench_synthetic.py [count] [size]
"""

import sys
import time

from rayseg.datasets.synthetic import make_scene


def main() -> None:
    count, size = (int(text) for text in (*sys.argv[1:], "1000", "128")[:2])
    make_scene(0, 0, size)
    start = time.process_time()
    for index in range(count):
        make_scene(0, index, size)
    seconds = time.process_time() - start
    print(f"{count} scenes of {size} px in {seconds:.2f} s of one core: {count / seconds:.0f}/s")


if __name__ == "__main__":
    main()
