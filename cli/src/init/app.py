import json


def handler(event, context):
    """Answers an HTTP request; the event has the shape AWS Lambda gives (HTTP API, payload 2.0)."""
    name = event.get("pathParameters", {}).get("name", "world")
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"message": f"Hello, {name}!"}),
    }
