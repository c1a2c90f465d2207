"""The command: `mtl`, or `python -m mtl`."""

import signal
import sys

from mtl.signals import STOPPING, end_at_once
from mtl.training.process import start_process


def main() -> int:
    """Run the command line. A signal ends it at once, except during training and while a file must not stay half."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores a signal in this way
            signal.signal(number, end_at_once)
    start_process()
    from mtl.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
