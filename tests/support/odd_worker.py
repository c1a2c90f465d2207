"""A process of a pool that dies when it is told to: before it reports its job, or while it has none."""

import json
import os
import sys
import time

for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "die":
        os._exit(9)
    time.sleep(order.get("seconds", 0))
    print(json.dumps({"ended": "finished"}), flush=True)
    if order["do"] == "end":
        os._exit(9)
