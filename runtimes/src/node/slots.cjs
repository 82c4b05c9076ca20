// Several invocations at once: requests are read while others run, and each has its own context and its own lines. A part of
// the script that `fnbus_runtime.cjs` begins.

// Reads requests while others run.
function serve() {
  running = new Map();
  const pipe = new (require("node:net").Socket)({ fd: REQUESTS, readable: true, writable: false });
  let [parts, length, wanted] = [[], 0, HEAD_SIZE];
  pipe.on("data", (data) => {
    parts.push(data);
    length += data.length;
    if (length < wanted) return;
    let rest = parts.length > 1 ? Buffer.concat(parts) : data;
    for (;;) {
      wanted = rest.length < HEAD_SIZE ? HEAD_SIZE : sizeOf(rest);
      if (rest.length < wanted) break;
      receive(rest.subarray(0, wanted));
      rest = rest.subarray(wanted);
    }
    [parts, length] = [[rest], rest.length];
  });
  pipe.on("close", () => process.exit(0));
}

function receive(frame) {
  if (frame[20] !== TAKEN) return invoke(frame);
  const invocation = running.get(frame.toString("latin1", HEAD, HEAD_SIZE));
  const goOn = invocation?.taken;
  if (!goOn) return;
  invocation.taken = null;
  goOn();
}

const INVOCATION = Symbol("invocation");
const REQUEST_ID = Symbol.for("_AWS_LAMBDA_REQUEST_ID");
const TRACE_ID = Symbol.for("_AWS_LAMBDA_X_RAY_TRACE_ID");

// What is kept for each invocation, by us and by packages: they know this as AWS' `@aws/lambda-invoke-store`.
class InvokeStore {
  #contexts;

  constructor(contexts) {
    this.#contexts = contexts;
  }

  run(context, then) {
    return this.#contexts.run(context, then);
  }

  getContext() {
    return this.#contexts.getStore();
  }

  hasContext() {
    return this.getContext() !== undefined;
  }

  get(key) {
    return this.getContext()?.[key];
  }

  set(key, value) {
    if (!this.hasContext()) throw new Error("No context available");
    if (this.isProtectedKey(key)) throw new Error(`Cannot modify protected Lambda context field: ${String(key)}`);
    this.getContext()[key] = value;
  }

  isProtectedKey(key) {
    return key === REQUEST_ID || key === TRACE_ID;
  }

  getRequestId() {
    return this.get(REQUEST_ID) ?? "-";
  }

  getXRayTraceId() {
    return this.get(TRACE_ID);
  }

  getTenantId() {}
}

// Where one runs after the other: what the last one has.
class Last {
  run(context, then) {
    this.context = context;
    return then();
  }

  getStore() {
    return this.context;
  }
}

// From now on what is printed says whose it is.
function tag() {
  store = new InvokeStore(new (require("node:async_hooks").AsyncLocalStorage)());
  for (const [stream, kind] of [
    [process.stdout, STDOUT],
    [process.stderr, STDERR],
  ]) {
    const write = stream.write.bind(stream);
    stream.write = (chunk, encoding, callback) => {
      if (typeof encoding === "function") [encoding, callback] = [undefined, encoding];
      const bytes = typeof chunk === "string" ? Buffer.from(chunk, encoding) : chunk;
      if (!(bytes instanceof Uint8Array) || !print(kind, bytes)) return write(chunk, encoding, callback);
      if (callback) process.nextTick(callback);
      return true;
    };
  }
}

// Prints for the invocation that does it. Whether there is one.
function print(kind, bytes) {
  const invocation = running && store.get(INVOCATION);
  if (!invocation?.runs()) return false;
  for (let at = 0; at < bytes.length; at += PIECE) answer(kind, bytes.subarray(at, at + PIECE), invocation.id);
  return true;
}
