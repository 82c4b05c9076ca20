// Payments come from a queue, several at once. Those that are named as failed are tried again, the others are done.
exports.handler = async (event) => {
  const batchItemFailures = [];
  for (const record of event.Records) {
    try {
      settle(JSON.parse(record.body));
    } catch (error) {
      console.error(`${record.body}: ${error.message}`);
      batchItemFailures.push({ itemIdentifier: record.messageId });
    }
  }
  return { batchItemFailures };
};

function settle({ number, cents }) {
  if (!number) throw new Error("a payment names the order it is for");
  if (!Number.isSafeInteger(cents) || cents <= 0) throw new Error("a payment is of whole cents, more than none");
  console.log(`order ${number}: ${cents} cents are paid`);
}
