"""The event trigger `priced`: a function gets the event's data."""


def handler(event, context):
    print(f"the customer hears: {event}")
    return {"notified": True}
