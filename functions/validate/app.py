"""The first step of `checkout`: what is no order is refused with a sentence, before anybody works on it."""


def handler(order, context):
    if not isinstance(order, dict):
        raise ValueError("an order is a JSON object, sent as application/json")
    if not order.get("item"):
        raise ValueError('an order names an item: {"item": "Trail 5", "quantity": 2}')
    quantity = order.get("quantity", 1)
    if type(quantity) is not int or quantity < 1:
        raise ValueError(f"a quantity is a whole number from 1 on, not {quantity!r}")
    # The event's id is the same in every attempt and every replay. So is the number of the order.
    number = order.get("number", context.event_id)
    return {"number": number, "item": order["item"], "quantity": quantity}
