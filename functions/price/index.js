// What things cost, in whole cents: money is no floating-point number. Two handlers share this folder and its price list.
const prices = new Map(Object.entries(require("./prices.json")));

function cents(item) {
  if (!prices.has(item)) throw new Error(`there is no price for "${item}"`);
  return prices.get(item);
}

// The second step of `checkout`. What it throws is tried again, and then the order is a dead letter.
exports.handler = async (order) => {
  return { ...order, cents: cents(order.item) * order.quantity };
};

// GET /price/{item}: the request comes as API Gateway sends it, and what is returned is the response.
exports.quote = async (request) => {
  const { item } = request.pathParameters;
  try {
    return { item, cents: cents(item) };
  } catch (error) {
    return { statusCode: 404, headers: { "content-type": "text/plain" }, body: `${error.message}\n` };
  }
};
