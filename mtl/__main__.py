"""The command: `mtl`, and `python -m mtl`."""

import signal
import sys

from mtl.signals import STOPPING, end_at_once


def main() -> int:
    """The command line, which a signal ends at once, but where a run trains or a file must not stay half."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end_at_once)
    from mtl.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
