"""A file in inbox/: every row is an order. With `each = true` each of them goes on by itself."""

import csv


def handler(event, context):
    [record] = event["Records"]
    # The notification is S3's, and says where the file is beside it.
    with open(record["fnbus"]["path"], newline="") as file:
        orders = [
            {
                "number": f"{row['order_id']}-{row['order_line']}",
                "item": row["model"],
                "quantity": int(row["quantity"]),
            }
            for row in csv.DictReader(file)
        ]
    print(f"{len(orders)} orders in {record['s3']['object']['key']}")
    return orders
