"""Events of type `order.confirmed`, whoever puts them on the bus. The function gets their data."""


def handler(order, context):
    print(f"to the customer of order {order.get('number')}: {order.get('text')}")
