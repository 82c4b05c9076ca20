#!/usr/bin/env python3
"""A command: the event is on stdin, what is printed is the result. It adds up what was sold, from out/orders.jsonl."""

import json
import sys
from pathlib import Path

tick = json.load(sys.stdin)
# It runs in a copy of its folder, which is in the data folder of the project.
project = next(folder for folder in Path.cwd().parents if (folder / "fnbus.toml").exists())
sold = project / "out" / "orders.jsonl"
lines = [json.loads(line) for line in sold.read_text().splitlines()] if sold.exists() else []
# A file gets everything at least once: a line that is there twice has the same event.
orders = {line["event"]: line["data"] for line in lines}
cents = sum(order.get("cents", 0) for order in orders.values())
print(json.dumps({"until": tick["time"], "orders": len(orders), "cents": cents}))
