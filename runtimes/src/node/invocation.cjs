// An invocation: what its handler knows of it, how it runs and ends, and what goes in and out. A part of the script that
// `fnbus_runtime.cjs` begins.

// What a handler knows of its invocation.
class Context {
  clientContext = undefined;
  identity = undefined;
  tenantId = undefined;
  #deadline;

  constructor(eventId, traceparent, left, invocation) {
    const env = task.env;
    this.functionName = env.AWS_LAMBDA_FUNCTION_NAME;
    this.functionVersion = env.AWS_LAMBDA_FUNCTION_VERSION;
    this.memoryLimitInMB = env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE;
    this.logGroupName = env.AWS_LAMBDA_LOG_GROUP_NAME;
    this.logStreamName = env.AWS_LAMBDA_LOG_STREAM_NAME;
    this.invokedFunctionArn = `arn:aws:lambda:${env.AWS_REGION}:000000000000:function:${this.functionName}`;
    this.awsRequestId = invocation.id;
    // stays the same when an event is tried again; the request id does not
    this.eventId = eventId;
    this.traceparent = traceparent;
    this.#deadline = performance.now() + left;
    if (!CALLBACKS) {
      this.xRayTraceId = xray(traceparent);
      return;
    }
    this.callbackWaitsForEmptyEventLoop = true;
    const hide = (value) => ({ value, enumerable: false });
    Object.defineProperties(this, {
      done: hide((error, result) => invocation.done(error, result)),
      succeed: hide((result) => invocation.done(null, result)),
      fail: hide((error) => invocation.done(error ?? "handled")),
    });
  }

  getRemainingTimeInMillis() {
    return Math.max(Math.floor(this.#deadline - performance.now()), 0);
  }
}

class Invocation {
  ended = false;
  // set by a callback that waits for the event loop to be empty
  waiting = null;
  promised = false;

  constructor(id) {
    this.id = id;
  }

  called(error, result) {
    if (this.ended || this.waiting) return;
    const well = error === null || error === undefined;
    // where others run beside it, the event loop may never be empty
    if (well && !running && this.context.callbackWaitsForEmptyEventLoop) this.waiting = () => this.end(result);
    else this.done(error, result);
  }

  done(error, result) {
    if (this.ended || this.waiting) return;
    if (error === null || error === undefined) this.end(result);
    else this.fail(error);
  }

  end(result) {
    this.answer(...output(result));
  }

  fail(error) {
    // as a callback's error would be
    this.answer(ERROR, encode(failure(CALLBACKS ? (error ?? "handled") : error)));
  }

  // Runs a handler that writes its answer; it has ended when the handler and the stream have.
  async stream(event) {
    this.promised = true;
    const stream = new ResponseStream(this, handler[HIGH_WATER_MARK]);
    this.written = stream;
    const finished = new Promise((resolve, reject) => stream.on("finish", resolve).on("error", reject));
    finished.catch(() => {});
    try {
      const result = handler(event, stream, this.context);
      if (typeof result?.then !== "function") {
        const message = "Streaming does not support non-async handlers.";
        throw CALLBACKS ? message : new Error(message);
      }
      if ((await result) !== undefined) console.warn("Streaming handlers ignore return values.");
      this.unfinished = "the handler has returned and its response stream is open; call end() on it";
      await finished;
      this.answer(OK, Buffer.alloc(0));
    } catch (error) {
      stream.destroy();
      stream.quiet(() => this.fail(error));
    }
  }

  answer(kind, body) {
    if (this.ended) return;
    this.ended = true;
    // after the promises of this turn: one that was rejected and not handled ends the process, not the next invocation
    setImmediate(() => {
      if (!this.runs()) return;
      if (running) {
        running.delete(this.id);
        return answer(kind, body, this.id);
      }
      current = null;
      answer(kind, body);
      next();
    });
  }

  runs() {
    return running ? running.get(this.id) === this : current === this;
  }
}

// Reads the next request, however long that takes, and begins it.
function next() {
  if (rehearsed) return rehearsed();
  const head = fill(HEAD_SIZE);
  invoke(fill(sizeOf(head), head));
}

// The size of a request, by its head.
function sizeOf(head) {
  return HEAD_SIZE + head.readUInt32LE(0) + head.readUInt32LE(8) + head.readUInt32LE(12) + head.readUInt32LE(16);
}

function invoke(frame) {
  const invocation = new Invocation(frame.toString("latin1", HEAD, HEAD_SIZE));
  if (running) running.set(invocation.id, invocation);
  else current = invocation;
  store.run({ [INVOCATION]: invocation, [REQUEST_ID]: invocation.id }, () => run(invocation, frame));
}

function run(invocation, frame) {
  const size = frame.readUInt32LE(0);
  const left = frame.readUInt32LE(4);
  const traceAt = HEAD_SIZE + frame.readUInt32LE(8);
  const contextAt = traceAt + frame.readUInt32LE(12);
  const at = contextAt + frame.readUInt32LE(16);
  const eventId = frame.toString("utf8", HEAD_SIZE, traceAt);
  const traceparent = traceAt < contextAt ? frame.toString("utf8", traceAt, contextAt) : undefined;
  store.getContext()[TRACE_ID] = xray(traceparent);
  if (!running && traceparent !== traced) trace(traceparent);
  let event;
  try {
    event = eventOf(frame[20], frame.subarray(at, at + size));
  } catch (error) {
    const body = told("Runtime.UnmarshalError", `Unable to unmarshal input: ${error.message}; send JSON`);
    invocation.answer(ERROR, encode(body));
    return;
  }
  invocation.context = new Context(eventId, traceparent, left, invocation);
  if (contextAt < at) invocation.context.clientContext = JSON.parse(frame.toString("utf8", contextAt, at));
  if (handler[STREAMING] === "response") return invocation.stream(event);
  try {
    const callback = CALLBACKS ? [(error, value) => invocation.called(error, value)] : [];
    const result = handler(event, invocation.context, ...callback);
    if (typeof result?.then === "function") {
      invocation.promised = true;
      result.then(
        (value) => invocation.end(value),
        (error) => invocation.fail(error),
      );
    } else if (!CALLBACKS || (result !== undefined && handler.length < 3)) {
      invocation.end(result);
    }
  } catch (error) {
    invocation.fail(error);
  }
}

// Nothing is left to do.
function idle() {
  const invocation = current;
  if (!invocation || invocation.ended) return;
  if (invocation.waiting) {
    invocation.waiting();
  } else if (invocation.promised) {
    const never = "the handler's promise was never settled, and nothing is left that could settle it";
    const message = invocation.unfinished ?? never;
    invocation.answer(ERROR, encode(told("Runtime.NodeJsExit", message)));
  } else {
    invocation.end(null);
  }
}

// -- what goes in and out ---------------------------------------------------------------------------------------

function eventOf(form, data) {
  if (form === BYTES) return Buffer.from(data);
  if (form === JSON_FORM) return JSON.parse(utf8(data));
  let string;
  try {
    string = utf8(data);
  } catch {
    return Buffer.from(data);
  }
  if (form === TEXT) return string;
  try {
    return JSON.parse(string);
  } catch {
    return string;
  }
}

const decoder = new TextDecoder("utf-8", { fatal: true });
const utf8 = (data) => decoder.decode(data);

function output(result) {
  let body;
  try {
    body = result instanceof Uint8Array ? result : Buffer.from(JSON.stringify(result) ?? "null");
  } catch (error) {
    // the lines behind the first one draw where it is
    const why = text(error?.message).split("\n")[0];
    const message = `Unable to stringify response body: ${why}; return what JSON.stringify takes, or a Buffer`;
    return [BAD_OUTPUT, encode(told("Runtime.MarshalError", message))];
  }
  if (body.length <= task.limit) return [OK, body];
  const message = `Response payload size (${body.length} bytes) exceeded maximum allowed payload size (${task.limit} bytes); store it elsewhere and return where`;
  return [TOO_LARGE, encode(told("Function.ResponseSizeTooLarge", message))];
}

// The trace of the invocation as X-Ray's clients look for it.
function trace(traceparent) {
  traced = traceparent;
  const id = xray(traceparent);
  if (id) process.env._X_AMZN_TRACE_ID = id;
  else delete process.env._X_AMZN_TRACE_ID;
}

function xray(traceparent) {
  const parts = traceparent?.split("-") ?? [];
  if (parts.length !== 4 || parts[1].length !== 32) return traceparent;
  const sampled = parseInt(parts[3], 16) & 1;
  return `Root=1-${parts[1].slice(0, 8)}-${parts[1].slice(8)};Parent=${parts[2]};Sampled=${sampled}`;
}
