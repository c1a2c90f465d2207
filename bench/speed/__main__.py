"""`python -m bench.speed`: the settings of a process of mtl's own, and then bench/speed/main.py."""

from bench.speed import measure  # noqa: F401  (it remembers the environment before mtl sets it)
from mtl.training.process import load_torch, start_process

if __name__ == "__main__":
    start_process()
    load_torch()
    from bench.speed.main import main

    main()
