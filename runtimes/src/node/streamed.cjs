// Answers that are streamed. A part of the script that `fnbus_runtime.cjs` begins.

// by these names other packages find them too
const STREAMING = Symbol.for("aws.lambda.runtime.handler.streaming");
const HIGH_WATER_MARK = Symbol.for("aws.lambda.runtime.handler.streaming.highWaterMark");
const HTTP_RESPONSE = "application/vnd.awslambda.http-integration-response";

function streamifyResponse(handler, options) {
  handler[STREAMING] = "response";
  if (typeof options?.highWaterMark === "number") handler[HIGH_WATER_MARK] = parseInt(options.highWaterMark);
  return handler;
}

class HttpResponseStream {
  // The stream of a response that begins with its status, headers and cookies.
  static from(stream, prelude) {
    stream.setContentType(HTTP_RESPONSE);
    stream._onBeforeFirstWrite = (write) => write(Buffer.concat([encode(prelude), Buffer.alloc(8)]));
    return stream;
  }
}

class InvalidStreamingOperation extends Error {}
InvalidStreamingOperation.prototype.name = "Runtime.InvalidStreamingOperation";

// Writes to the pipe without blocking the event loop, one piece after the other: a caller that is slow is felt here.
class ResponseStream extends Writable {
  #invocation;
  #type = "application/octet-stream";
  #begun = false;
  #writing = false;
  #after;

  constructor(invocation, highWaterMark) {
    super({ highWaterMark });
    this.#invocation = invocation;
  }

  setContentType(type) {
    if (this.#begun) throw new InvalidStreamingOperation("Cannot set content-type, too late.");
    this.#type = type;
  }

  write(chunk, encoding, callback) {
    if (typeof chunk !== "string" && !(chunk instanceof Uint8Array)) chunk = JSON.stringify(chunk);
    return super.write(chunk, encoding, callback);
  }

  end(chunk, encoding, callback) {
    if (typeof chunk === "object" && chunk !== null && !(chunk instanceof Uint8Array)) chunk = JSON.stringify(chunk);
    return super.end(chunk, encoding, callback);
  }

  _write(chunk, encoding, callback) {
    const pieces = this.#begin();
    for (let at = 0; at < chunk.length; at += PIECE) pieces.push([DATA, chunk.subarray(at, at + PIECE)]);
    this.#send(pieces, callback);
  }

  _final(callback) {
    this.#send(this.#begin(), callback);
  }

  // What comes before the first byte.
  #begin() {
    if (this.#begun) return [];
    this.#begun = true;
    const pieces = [[BEGINS, Buffer.from(this.#type)]];
    this._onBeforeFirstWrite?.((data) => pieces.push([DATA, Buffer.from(data)]));
    return pieces;
  }

  #send(pieces, callback) {
    const invocation = this.#invocation;
    if (!invocation.runs()) return callback(new InvalidStreamingOperation("The invocation has ended."));
    if (running) {
      // the next when the one before was taken, so that a caller that is slow keeps no other waiting
      const goOn = () => {
        const piece = pieces.shift();
        if (!piece) return callback();
        if (piece[0] === DATA) invocation.taken = goOn;
        answer(...piece, invocation.id);
        if (piece[0] !== DATA) goOn();
      };
      return goOn();
    }
    this.#writing = true;
    send(Buffer.concat(pieces.map(([kind, body]) => framed(kind, body))), (error) => {
      this.#writing = false;
      if (this.#after) this.#after();
      else callback(error);
    });
  }

  // Does something that writes too, when no frame is on its way any more; then nothing is written here.
  quiet(then) {
    if (this.#writing) this.#after = then;
    else then();
  }
}
