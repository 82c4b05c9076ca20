"""GET /price/{item}: a synchronous function. It gets the request in the shape of API Gateway's payload 2.0."""

PRICES = {"apple": 1.20, "bread": 3.50, "cheese": 7.90}


def handler(event, context):
    item = event["pathParameters"]["item"]
    if item not in PRICES:
        return {"statusCode": 404, "body": f"no price for {item}\n"}
    # A result without `statusCode` is a 200 with this JSON.
    return {"item": item, "price": PRICES[item]}
