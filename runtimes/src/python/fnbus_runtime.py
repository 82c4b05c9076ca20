"""Runs one Python function for fnbus: requests come in on fd 3, answers go out on fd 4, one at a time. Or loads it and
forks instances of it, as fd 5 asks (a zygote).

The frames are described in frame.rs. Only the standard library, no threads, few system calls: a warm call is one
read, the handler, one write. What an error needs (traceback, asyncio) is imported when it happens, so that a cold
start does not pay for it.
"""

import gc
import json
import os
import sys
import time
from _struct import Struct

REQUESTS = 3
ANSWERS = 4
CONTROL = 5
# payload length, milliseconds left, event id length, trace length, context length, form; then 36 bytes of request id
HEAD = Struct("<IIIIIB")
HEAD_SIZE = HEAD.size + 36
ANSWER = Struct("<IB")
JSON, TEXT, BYTES, UNKNOWN = b"JTBU"
READY, FORKS, INIT_ERROR, OK, ERROR, BAD_OUTPUT, OUT_OF_MEMORY, TOO_LARGE = b"RZIOEBML"


async def _coroutine():
    pass


_sample = _coroutine()
Coroutine = type(_sample)
_sample.close()


class Identity:
    cognito_identity_id = None
    cognito_identity_pool_id = None


class Fields:
    """A JSON object by the names that are known of it."""

    def __init__(self, names, values):
        for name in names:
            setattr(self, name, values.get(name))


def client_context(told):
    context = Fields(("custom", "env", "client"), told)
    if context.client is not None:
        names = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
        context.client = Fields(names, context.client)
    return context


class Context:
    """What a handler knows of its invocation. The attributes of the function are set once, on the class."""

    identity = Identity()
    client_context = None
    tenant_id = None

    def __init__(self, request_id, event_id, traceparent, deadline):
        self.aws_request_id = request_id
        # stays the same when an event is tried again; the request id does not
        self.event_id = event_id
        self.traceparent = traceparent
        self._deadline = deadline

    def get_remaining_time_in_millis(self):
        return max(int((self._deadline - time.monotonic()) * 1000), 0)

    def log(self, text):
        sys.stdout.write(str(text))


def main():
    code, source, handler, limit, kind, *site = sys.argv[1:]
    for fd in (REQUESTS, ANSWERS):
        os.set_inheritable(fd, False)
    # lines leave at once: what a function printed before it was stopped is not lost
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    begun = time.perf_counter_ns()
    try:
        function = load(code, source, handler, site)
        if kind == "zygote" and is_forkable():
            begun = fork_instances(begun)
    except InitError as error:
        refuse(error.body)
    except Exception as error:
        refuse(failure(error))
    env = os.environ
    name = env["AWS_LAMBDA_FUNCTION_NAME"]
    Context.function_name = name
    Context.function_version = env["AWS_LAMBDA_FUNCTION_VERSION"]
    Context.memory_limit_in_mb = env["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
    Context.log_group_name = env["AWS_LAMBDA_LOG_GROUP_NAME"]
    Context.log_stream_name = env["AWS_LAMBDA_LOG_STREAM_NAME"]
    Context.invoked_function_arn = "arn:aws:lambda:%s:000000000000:function:%s" % (env["AWS_REGION"], name)
    flush()
    # what was imported stays: later collections need not look at it
    gc.freeze()
    loaded(READY, begun)
    serve(function, int(limit))


def loaded(kind, begun):
    answer(kind, (time.perf_counter_ns() - begun).to_bytes(8, "little"))


def serve(function, limit):
    read, unpack, monotonic, getpid = os.read, HEAD.unpack_from, time.monotonic, os.getpid
    pid = getpid()
    traced = None
    while True:
        frame = read(REQUESTS, 65536)
        if len(frame) < HEAD_SIZE:
            frame = rest(frame, HEAD_SIZE)
        size, left, event_len, trace_len, context_len, form = unpack(frame)
        traced_to = HEAD_SIZE + event_len + trace_len
        at = traced_to + context_len
        if len(frame) < at + size:
            frame = rest(frame, at + size)
        request_id = str(frame[HEAD.size : HEAD_SIZE], "ascii")
        event_id = str(frame[HEAD_SIZE : HEAD_SIZE + event_len], "utf-8")
        trace = str(frame[traced_to - trace_len : traced_to], "utf-8") if trace_len else None
        told = json.loads(str(frame[traced_to:at], "utf-8")) if context_len else None
        if trace != traced:
            traced = trace
            export(trace)
        try:
            event = event_of(form, frame[at : at + size])
        except Exception as error:
            kind, body = ERROR, unreadable(error, request_id)
        else:
            frame = None
            context = Context(request_id, event_id, trace, monotonic() + left / 1000)
            if told is not None:
                context.client_context = client_context(told)
            kind, body = run(function, event, context, limit)
            event = context = None
        if getpid() != pid:
            # a fork of the handler came back here: only the function itself answers
            os._exit(0)
        flush()
        answer(kind, body)
        body = None


def run(function, event, context, limit):
    try:
        result = function(event, context)
        if type(result) is Coroutine:
            result = wait_for(result)
    except (SystemExit, KeyboardInterrupt):
        raise
    except MemoryError as error:
        error.__traceback__ = None
        return OUT_OF_MEMORY, None
    except BaseException as error:
        return ERROR, failure(error, context.aws_request_id)
    try:
        body = output_of(result)
    except MemoryError:
        return OUT_OF_MEMORY, None
    except Exception as error:
        message = "Unable to marshal response: %s; return what json.dumps takes, or bytes" % error
        return BAD_OUTPUT, told("Runtime.MarshalError", message, context.aws_request_id)
    if len(body) > limit:
        message = (
            "Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes);"
            " store it elsewhere and return where"
        )
        return TOO_LARGE, told("Function.ResponseSizeTooLarge", message % (len(body), limit), context.aws_request_id)
    return OK, body


loop = None


def wait_for(coroutine):
    """One event loop for the life of the instance, so that clients kept between invocations go on working."""
    global loop
    if loop is None:
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop.run_until_complete(coroutine)


# -- the code ---------------------------------------------------------------------------------------------------


class InitError(Exception):
    def __init__(self, kind, message, stack=()):
        self.body = told(kind, message, None, stack)


def load(code, source, handler, site):
    paths = [code, code + "/python"]
    sys.path[0:1] = [path for path in paths if os.path.isdir(path)]
    sys.path.extend(venv(source))
    sys.path.extend(site)
    module_name, dot, function_name = handler.rpartition(".")
    if not module_name or not function_name:
        raise InitError(
            "Runtime.MalformedHandlerName",
            "Bad handler '%s': write it as module.function, for example app.handler" % handler,
        )
    module_name = module_name.replace("/", ".").lstrip(".")
    try:
        __import__(module_name)
        module = sys.modules[module_name]
    except SyntaxError as error:
        file = within(code, error.filename)
        raise InitError(
            "Runtime.UserCodeSyntaxError",
            "Syntax error in module '%s': %s (%s:%s)" % (module_name, error.msg, file, error.lineno),
            ['  File "%s" Line %s\n    %s' % (file, error.lineno, (error.text or "").strip())],
        ) from None
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        message = "Unable to import module '%s': %s" % (module_name, error)
        if missing and (module_name == missing or module_name.startswith(missing + ".")):
            message += "; `handler` is '%s', so there must be a %s.py in %s" % (
                handler,
                module_name.replace(".", "/"),
                source,
            )
        elif missing:
            message += "; install it: pip install --target %s %s (or into a .venv there)" % (source, missing)
        raise InitError("Runtime.ImportModuleError", message, stack_of(error)) from None
    try:
        function = getattr(module, function_name)
    except AttributeError:
        raise InitError(
            "Runtime.HandlerNotFound",
            "Handler '%s' missing on module '%s'; define it there or name another one in `handler`"
            % (function_name, module_name),
        ) from None
    if not callable(function):
        raise InitError(
            "Runtime.HandlerNotFound",
            "Handler '%s' of module '%s' cannot be called; name a function" % (function_name, module_name),
        )
    return function


def venv(source):
    lib = source + "/.venv/lib"
    try:
        names = os.listdir(lib)
    except OSError:
        return []
    return [lib + "/" + name + "/site-packages" for name in sorted(names) if name.startswith("python3")]


def within(code, path):
    """A path as its author knows it: below the code folder."""
    return path[len(code) + 1 :] if path and path.startswith(code + "/") else path


# -- the zygote -------------------------------------------------------------------------------------------------


def is_forkable():
    """Whether nothing was started while the code was loaded that a fork would not have, or would have to share."""
    there = "/proc/self/task"
    if len(os.listdir(there)) > 1:
        reason = "a thread"
    elif children(there):
        reason = "a process"
    else:
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink("/proc/self/fd/" + fd)
            except OSError:
                continue
            if int(fd) > CONTROL and target != "/dev/urandom":
                reason = "open: %s" % target
                break
        else:
            return True
    print("fnbus: each instance loads the code itself, as loading it left %s" % reason, file=sys.stderr)
    return False


def children(tasks):
    try:
        with open("%s/%d/children" % (tasks, os.getpid())) as file:
            return file.read().strip()
    except OSError:
        return ""


def fork_instances(begun):
    """Forks until the end of the control socket; comes back in each instance, with the time it was told that it is one."""
    import errno
    from _socket import CMSG_SPACE, socket

    hooks("get_before_snapshot", "Runtime.BeforeSnapshotError")
    flush()
    gc.collect()
    gc.freeze()
    die_with_node = death_signal()
    four = Struct("4i")
    control, (pids, pid) = socket(fileno=CONTROL), os.pipe()
    number = Struct("i")
    loaded(FORKS, begun)
    while True:
        asked, sent, _, _ = control.recvmsg(1, CMSG_SPACE(four.size))
        if not asked:
            os._exit(0)
        fds = four.unpack(sent[0][2]) if sent else ()
        try:
            if not fds:
                raise OSError(errno.EMFILE, "no descriptors")
            child = os.fork()
            if child == 0:
                if forked(number, pid):
                    break
                os._exit(0)
            os.waitpid(child, 0)
            said = os.read(pids, number.size)
        except OSError as error:
            said = number.pack(-error.errno)
        for fd in fds:
            os.close(fd)
        control.sendall(said)
    for fd, place in zip(fds, (REQUESTS, ANSWERS, 1, 2)):
        os.dup2(fd, place, place in (1, 2))
        os.close(fd)
    control.close()
    os.close(pids)
    os.close(pid)
    return become(die_with_node)


def forked(number, pid):
    """In the first fork: makes the second, which stays when the first is gone. True in the second."""
    try:
        child = os.fork()
        if child == 0:
            return True
        os.setpgid(child, child)
        os.write(pid, number.pack(child))
    except OSError as error:
        os.write(pid, number.pack(-error.errno))
    return False


def become(die_with_node):
    """Makes a fork an instance of its own, when it is told to: its environment, and no chance that it shares with others."""
    global MARK
    head = rest(os.read(REQUESTS, 4), 4)
    begun = time.perf_counter_ns()
    told = json.loads(bytes(rest(os.read(REQUESTS, 65536), int.from_bytes(head, "little"))))
    os.environ.update(told["env"])
    die_with_node()
    MARK = mark()
    modules = sys.modules
    if "tempfile" in modules:
        modules["tempfile"].tempdir = None
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    hooks("get_after_restore", "Runtime.AfterRestoreError")
    return begun


def death_signal():
    """What a fork calls to be killed with the node. Does nothing where there is no way: who adopts the fork ends it then."""
    try:
        from _ctypes import call_function, dlopen, dlsym

        prctl = dlsym(dlopen(None, 0), "prctl")
    except Exception:
        return lambda: None
    pr_set_pdeathsig, sigkill = 1, 9
    return lambda: call_function(prctl, (pr_set_pdeathsig, sigkill))


def hooks(which, kind):
    """Those that the function registered by snapshot_restore_py, the package AWS has for it."""
    package = sys.modules.get("snapshot_restore_py")
    if package is None:
        return
    registered = list(getattr(package, which)())
    if which == "get_before_snapshot":
        registered.reverse()
    for function, args, kwargs in registered:
        try:
            function(*args, **kwargs)
        except Exception as error:
            raise InitError(kind, "%s: %s" % (type(error).__name__, error), stack_of(error)) from None


# -- values -----------------------------------------------------------------------------------------------------

decode = json.JSONDecoder().decode


def event_of(form, data):
    if form == BYTES:
        return bytes(data)
    if form != TEXT:
        try:
            return decode(str(data, "utf-8"))
        except (ValueError, RecursionError):
            if form == JSON:
                # a byte order mark, UTF-16, or the error to tell
                return json.loads(bytes(data))
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return bytes(data)


# json cannot be told to write a number's own digits: they travel as marked strings and lose their quotes at the end
def mark():
    return "fnbus-number-" + os.urandom(8).hex()


MARK = mark()
marked = False


def plain(value):
    global marked
    if type(value).__module__ == "decimal" and type(value).__name__ == "Decimal":
        marked = True
        return MARK + str(value) + MARK
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=plain).encode
encode_ascii = json.JSONEncoder(separators=(",", ":"), default=plain).encode


def output_of(result):
    global marked
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    marked = False
    text = encode(result)
    if marked:
        text = text.replace('"' + MARK, "").replace(MARK + '"', "")
    try:
        return text.encode()
    except UnicodeEncodeError:
        # half a surrogate pair: only its escape can be written
        text = encode_ascii(result)
        return (text.replace('"' + MARK, "").replace(MARK + '"', "") if marked else text).encode()


def export(trace):
    """The trace of the invocation as X-Ray's clients look for it."""
    parts = trace.split("-") if trace else ()
    if len(parts) == 4 and len(parts[1]) == 32:
        sampled = parts[3][-1:] in "13579bdf"
        root = "1-%s-%s" % (parts[1][:8], parts[1][8:])
        os.environ["_X_AMZN_TRACE_ID"] = "Root=%s;Parent=%s;Sampled=%d" % (root, parts[2], sampled)
    elif trace:
        os.environ["_X_AMZN_TRACE_ID"] = trace
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)


# -- errors -----------------------------------------------------------------------------------------------------


def told(kind, message, request_id, stack=()):
    error = {"errorMessage": message, "errorType": kind, "requestId": request_id or "", "stackTrace": list(stack)}
    print("[ERROR] %s: %s" % (kind, message), file=sys.stderr)
    return json.dumps(error, separators=(",", ":")).encode()


def failure(error, request_id=None):
    kind = type(error).__name__
    try:
        message = str(error)
    except Exception:
        message = "(the error has no text)"
    stack = stack_of(error)
    body = {"errorMessage": message, "errorType": kind, "requestId": request_id or "", "stackTrace": stack}
    if is_final(error):
        body["retry"] = False
    head = "[ERROR] %s: %s\nTraceback (most recent call last):\n" % (kind, message)
    try:
        sys.stderr.write(head + "".join(stack))
    except Exception:
        pass
    return json.dumps(body, separators=(",", ":")).encode()


def is_final(error):
    """Whether the handler says, by `retry = False` on the error or its class, that another attempt would end the same."""
    try:
        return getattr(error, "retry", None) is False
    except Exception:
        return False


def stack_of(error):
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    ours = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>", __file__)
    return traceback.format_list([frame for frame in frames if frame.filename not in ours])


def unreadable(error, request_id):
    return told("Runtime.UnmarshalError", "Unable to unmarshal input: %s; send JSON" % error, request_id)


# -- pipes ------------------------------------------------------------------------------------------------------


def rest(start, total):
    """Reads on until `total` bytes are there. The end of the pipe is the end of the instance."""
    if not start:
        sys.exit(0)
    frame = bytearray(max(total, len(start)))
    frame[: len(start)] = start
    view = memoryview(frame)[len(start) :]
    while view:
        got = os.readv(REQUESTS, [view])
        if not got:
            sys.exit(0)
        view = view[got:]
    return frame


def flush():
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        # closed or replaced by the function: its own affair
        pass


def answer(kind, body):
    if body is None:
        body = b'{"errorMessage":"the function ran out of memory; raise its `memory`","errorType":"MemoryError"}'
    frame = ANSWER.pack(len(body), kind) + body
    sent = os.write(ANSWERS, frame)
    while sent < len(frame):
        sent += os.write(ANSWERS, memoryview(frame)[sent:])


def refuse(body):
    flush()
    answer(INIT_ERROR, body)
    os._exit(1)
