"use strict";
// Runs one Node.js function for fnbus: requests come in on fd 3, answers go out on fd 4, one at a time, or several at once
// where the function has slots.
//
// The frames are described in frame.rs. Only the standard library. A process is started before it is known what it will
// run: the first thing it reads says that. While it is idle it waits in a read that blocks everything, so nothing of a
// handler goes on between two invocations, as on AWS; with several slots it waits in the event loop.
//
// The script goes on in invocation.cjs, slots.cjs and streamed.cjs: Node.js gets it in one piece, as each file more takes
// time at each start.

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
