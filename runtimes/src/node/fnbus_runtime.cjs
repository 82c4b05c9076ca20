"use strict";
// Runs one Node.js function for fnbus: requests come in on fd 3, answers go out on fd 4, one at a time, or several at once
// where the function has slots.
//
// The frames are described in frame.rs. Only the standard library. A process is started before it is known what it will
// run: the first thing it reads says that. While it is idle it waits in a read that blocks everything, so nothing of a
// handler goes on between two invocations, as on AWS; with several slots it waits in the event loop.

const fs = require("node:fs");
const path = require("node:path");
const { Writable } = require("node:stream");
const { pathToFileURL } = require("node:url");

const REQUESTS = 3;
const ANSWERS = 4;
// payload length, milliseconds left, event id length, trace length, context length, form; then 36 bytes of request id
const HEAD = 21;
const HEAD_SIZE = HEAD + 36;
const [JSON_FORM, TEXT, BYTES, TAKEN] = Buffer.from("JTBA");
const [READY, INIT_ERROR, OK, ERROR, BAD_OUTPUT, CRASH, TOO_LARGE, BEGINS, DATA, STDOUT, STDERR] =
  Buffer.from("RIOEBCLSD12");
const NOBODY = "00000000-0000-0000-0000-000000000000";
// bytes of one piece of a streamed answer
const PIECE = 65536;
// AWS' runtimes take no handlers with callbacks from Node.js 24 on
const CALLBACKS = parseInt(process.versions.node, 10) < 24;

const chunk = Buffer.allocUnsafe(65536);
let task, handler, traced;
// the invocation that runs; undefined while the code is loaded, null in between
let current;
// with several slots those that run by their ids
let running;
// what what is done now is for
let store;
// set while a process that waits for a function goes through an invocation of nobody: what to do when it is over
let rehearsed;

function main() {
  store = new InvokeStore(new Last());
  if (process.argv[2] === "spare") rehearse(begin);
  else begin();
}

// Whatever an invocation takes is compiled when it first runs, and that takes longer than most handlers. A process that
// waits has the time for it.
function rehearse(done) {
  const env = {};
  task = { code: "/", source: "/", handler: "rehearsal.handler", env, limit: 1024 };
  const module = new (require("node:module"))("/rehearsal.js");
  module._compile("exports.handler = async (event) => ({ ...event });", "/rehearsal.js");
  handler = module.exports.handler;
  load().catch(() => {});
  const event = Buffer.from('{"n":[1,"a"]}');
  const frame = Buffer.alloc(HEAD_SIZE + event.length);
  frame.writeUInt32LE(event.length, 0);
  frame[20] = JSON_FORM;
  frame.set(event, HEAD_SIZE);
  let times = 3;
  rehearsed = () => {
    times -= 1;
    if (times > 0) return invoke(frame);
    task = handler = rehearsed = current = undefined;
    done();
  };
  invoke(frame);
}

function begin() {
  const start = fill(4);
  const length = 4 + start.readUInt32LE(0);
  task = JSON.parse(fill(length, start).toString("utf8", 4, length));
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, task.env);
  process.chdir(task.code);
  process.argv.length = 1;
  process.on("unhandledRejection", (reason) => {
    const message = reason instanceof Error ? `${reason.name}: ${reason.message}` : text(reason);
    fatal({ ...failure(reason), errorType: "Runtime.UnhandledPromiseRejection", errorMessage: message }, 128);
  });
  process.on("uncaughtException", (error) => fatal(failure(error), 129));
  process.on("beforeExit", idle);
  const begun = process.hrtime.bigint();
  if (!/^(1|true)$/.test(task.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) {
    globalThis.awslambda = { streamifyResponse, HttpResponseStream };
  }
  if (task.slots > 1) tag();
  if (globalThis.awslambda) globalThis.awslambda.InvokeStore = store;
  const keep = task.compiled ? compiled(task.compiled) : () => {};
  load().then(
    (loaded) => {
      handler = loaded;
      const took = Buffer.alloc(8);
      took.writeBigUInt64LE(process.hrtime.bigint() - begun);
      // after the promises of this turn, of which one may have been rejected
      setImmediate(() => {
        keep();
        current = null;
        answer(READY, took);
        if (task.slots > 1) serve();
        else next();
      });
    },
    (error) => fatal(error instanceof InitError ? told(error.kind, error.message, error.trace) : failure(error), 1),
  );
}

// -- the code ---------------------------------------------------------------------------------------------------

class InitError extends Error {
  constructor(kind, message, cause) {
    super(message);
    this.kind = kind;
    this.trace = cause ? stack(cause) : [];
  }
}

async function load() {
  const name = task.handler;
  const match = /^(.*?)([^/]+?)\.([^/]+)$/.exec(name);
  if (!match || name.split("/").includes("..")) {
    throw new InitError(
      "Runtime.MalformedHandlerName",
      `Bad handler '${name}': write it as file.export, for example index.handler`,
    );
  }
  const [, folder, base, exported] = match;
  const file = [".js", ".mjs", ".cjs"]
    .map((extension) => path.join(task.code, folder, base + extension))
    .find((candidate) => fs.existsSync(candidate));
  if (!file) {
    const tried = path.join(task.source, folder, base);
    throw new InitError(
      "Runtime.ImportModuleError",
      `Error: Cannot find module '${folder}${base}'; \`handler\` is '${name}', so there must be a ${tried}.js, .mjs or .cjs`,
    );
  }
  let loaded;
  try {
    loaded = await imported(file);
  } catch (error) {
    if (error instanceof SyntaxError) {
      const place = /^(.*:\d+)$/m.exec(String(error.stack))?.[1];
      const at = place ? ` (${within(place.replace(/^file:\/\//, ""))})` : "";
      throw new InitError("Runtime.UserCodeSyntaxError", `SyntaxError: ${error.message}${at}`, error);
    }
    if (error?.code === "MODULE_NOT_FOUND" || error?.code === "ERR_MODULE_NOT_FOUND") {
      const missing = /Cannot find (?:module|package) '([^']+)'/.exec(error.message)?.[1];
      let message = `Error: ${error.message.split("\n")[0]}`;
      if (missing && !/^[./]/.test(missing)) message += `; install it: npm install --prefix ${task.source} ${missing}`;
      throw new InitError("Runtime.ImportModuleError", message, error);
    }
    throw error;
  }
  let found = loaded;
  for (const part of exported.split(".")) found = found?.[part];
  if (found === undefined && loaded?.default) {
    found = loaded.default;
    for (const part of exported.split(".")) found = found?.[part];
  }
  if (typeof found !== "function") {
    const what = found === undefined ? "is undefined or not exported" : "is not a function";
    throw new InitError(
      "Runtime.HandlerNotFound",
      `${name} ${what}; export a function of that name, or name another one in \`handler\``,
    );
  }
  if (!CALLBACKS && found.length >= 3 && found[STREAMING] !== "response") {
    throw new InitError(
      "Runtime.CallbackHandlerDeprecated",
      `${name} takes a callback, which AWS has no runtime for from Node.js 24 on; make it async, or run it with Node.js 22: runtime = "nodejs22.x"`,
    );
  }
  return found;
}

// Has what is compiled taken from a folder, or written there when the function that is returned is called. That it is not
// costs time alone.
function compiled({ folder, portable, fill }) {
  const { enableCompileCache, flushCompileCache } = require("node:module");
  const attempt = (action) => {
    try {
      action();
    } catch {
      // such a Node.js has none
    }
  };
  attempt(() => enableCompileCache(portable ? { directory: folder, portable } : folder));
  return () => fill && attempt(flushCompileCache);
}

async function imported(file) {
  const url = pathToFileURL(file).href;
  if (file.endsWith(".mjs")) return import(url);
  try {
    return require(file);
  } catch (error) {
    if (error?.code === "ERR_REQUIRE_ESM" || error?.code === "ERR_REQUIRE_ASYNC_MODULE") return import(url);
    throw error;
  }
}

// -- invocations ------------------------------------------------------------------------------------------------

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

// -- several at once --------------------------------------------------------------------------------------------

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

// -- streamed answers -------------------------------------------------------------------------------------------

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

// -- errors -----------------------------------------------------------------------------------------------------

function text(value) {
  try {
    return String(value);
  } catch {
    return "(it has no text)";
  }
}

function within(place) {
  return place.startsWith(task.code + "/") ? place.slice(task.code.length + 1) : place;
}

function stack(error) {
  return text(error?.stack ?? "")
    .split("\n")
    .filter((line) => line && !line.includes(__filename))
    .map((line) => line.replaceAll(task.code + "/", ""));
}

function failure(error) {
  const body =
    error instanceof Error || (typeof error?.message === "string" && typeof error?.name === "string")
      ? { errorType: text(error.name), errorMessage: text(error.message), trace: stack(error) }
      : { errorType: typeof error, errorMessage: plain(error), trace: [] };
  if (isFinal(error)) body.retry = false;
  say(`[ERROR] ${body.trace.length ? body.trace.join("\n") : `${body.errorType}: ${body.errorMessage}`}`);
  return body;
}

// Whether the handler says, by `retry: false` on the error, that another attempt would end the same.
function isFinal(error) {
  try {
    return error?.retry === false;
  } catch {
    return false;
  }
}

function plain(value) {
  if (typeof value !== "object" || value === null) return text(value);
  try {
    return JSON.stringify(value);
  } catch {
    return text(value);
  }
}

function told(errorType, errorMessage, trace = []) {
  say(`[ERROR] ${errorType}: ${errorMessage}`);
  return { errorType, errorMessage, trace };
}

// An error nobody handles ends the process: what it kept may be half done.
function fatal(body, code) {
  const end = () => {
    if (running?.size > 0) answer(CRASH, encode(body), NOBODY);
    if (current !== null) answer(current ? CRASH : INIT_ERROR, encode(body));
    process.exit(code);
  };
  if (current?.written) current.written.quiet(end);
  else end();
}

function say(line) {
  try {
    if (print(STDERR, Buffer.from(`${line}\n`))) return;
    fs.writeSync(2, `${line}\n`);
  } catch {
    // closed by the function: its own affair
  }
}

const encode = (value) => Buffer.from(JSON.stringify(value));

// -- pipes ------------------------------------------------------------------------------------------------------

// Reads until there are `total` bytes, behind what is there already. The end of the pipe is the end of the instance.
function fill(total, start) {
  let length = start ? start.length : 0;
  let frame = start;
  if (!start) {
    length = fs.readSync(REQUESTS, chunk, 0, chunk.length, null);
    if (length === 0) process.exit(0);
    if (length >= total) return Buffer.from(chunk.subarray(0, length));
    frame = chunk.subarray(0, length);
  }
  if (length >= total) return frame;
  const whole = Buffer.allocUnsafe(total);
  frame.copy(whole);
  while (length < total) {
    const got = fs.readSync(REQUESTS, whole, length, total - length, null);
    if (got === 0) process.exit(0);
    length += got;
  }
  return whole;
}

function framed(kind, body) {
  const frame = Buffer.allocUnsafe(5 + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame[4] = kind;
  frame.set(body, 5);
  return frame;
}

// Writes frames while other things go on.
function send(frames, callback) {
  if (frames.length === 0) return callback();
  fs.write(ANSWERS, frames, (error, sent) => {
    if (error) return callback(error);
    send(frames.subarray(sent), callback);
  });
}

function answer(kind, body, id) {
  const frame = framed(kind, id ? Buffer.concat([Buffer.from(id), body]) : body);
  if (rehearsed) return;
  for (let sent = 0; sent < frame.length; ) sent += fs.writeSync(ANSWERS, frame, sent);
}

main();
