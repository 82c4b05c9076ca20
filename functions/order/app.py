"""POST /orders/{region}: an asynchronous function. A failure is tried again, then it becomes a dead letter."""

import json


def handler(event, context):
    order = json.loads(event.get("body") or "{}")
    region = event["pathParameters"]["region"]
    print(f"order from {region}: {order}")
    if "item" not in order:
        raise ValueError('an order names an item: {"item": "apple"}')
    return {"region": region, "item": order["item"], "quantity": order.get("quantity", 1)}
