"""`python -m bench.speed`: the settings of a process of mtl's own, and then bench/speed/steps.py."""

from mtl.training.process import load_torch, start_process

if __name__ == "__main__":
    start_process()
    load_torch()
    from bench.speed.steps import main

    main()
