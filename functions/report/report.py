#!/usr/bin/env python3
"""A command: the event is on stdin, what is printed is the result. It adds up what was sold, from out/orders.jsonl."""

import json
import os
import sys
from pathlib import Path

tick = json.load(sys.stdin)
# It runs in a copy of its own folder; this is where fnbus.toml is.
sold = Path(os.environ["FNBUS_PROJECT"], "out", "orders.jsonl")
lines = [json.loads(line) for line in sold.read_text().splitlines()] if sold.exists() else []
# An order that was confirmed again, by a replay or a file that came twice, has the same number: it counts once.
orders = {order.get("number"): order for order in (line["data"] for line in lines)}
cents = sum(order.get("cents", 0) for order in orders.values())
print(json.dumps({"until": tick["time"], "orders": len(orders), "cents": cents}))
