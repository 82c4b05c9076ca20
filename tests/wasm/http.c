// A component that answers HTTP, in the plain form of the component model's calls: http.wit says what they are.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define TYPES "wasi:http/types@0.2.0"
#define STREAMS "wasi:io/streams@0.2.0"

// A result is written to memory where it is more than one number: first whether it is an error, or something at all.
typedef struct { uint8_t tag; int32_t value, length; } Result;
typedef struct { uint8_t tag; int64_t rest[7]; } LargeResult;

IMPORT(TYPES, "[method]incoming-request.method") void request_method(int32_t, Result *);
IMPORT(TYPES, "[method]incoming-request.path-with-query") void request_path(int32_t, Result *);
IMPORT(TYPES, "[method]incoming-request.consume") void request_consume(int32_t, Result *);
IMPORT(TYPES, "[method]incoming-body.stream") void body_stream(int32_t, Result *);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void stream_read(int32_t, int64_t, Result *);
IMPORT(TYPES, "[constructor]fields") int32_t fields_new(void);
IMPORT(TYPES, "[method]fields.append")
void fields_append(int32_t, const char *, int32_t, const char *, int32_t, Result *);
IMPORT(TYPES, "[constructor]outgoing-response") int32_t response_new(int32_t);
IMPORT(TYPES, "[method]outgoing-response.set-status-code") int32_t response_status(int32_t, int32_t);
IMPORT(TYPES, "[method]outgoing-response.body") void response_body(int32_t, Result *);
IMPORT(TYPES, "[static]response-outparam.set")
void answer_with(int32_t, int32_t, int32_t, int32_t, int64_t, int32_t, int32_t, int32_t, int32_t);
IMPORT(TYPES, "[method]outgoing-body.write") void body_write(int32_t, Result *);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write(int32_t, const char *, int32_t, Result *);
IMPORT(STREAMS, "[resource-drop]output-stream") void stream_drop(int32_t);
IMPORT(TYPES, "[static]outgoing-body.finish") void body_finish(int32_t, int32_t, int32_t, LargeResult *);
IMPORT(TYPES, "[constructor]outgoing-request") int32_t ask_new(int32_t);
IMPORT(TYPES, "[method]outgoing-request.set-scheme") int32_t ask_scheme(int32_t, int32_t, int32_t, int32_t, int32_t);
IMPORT(TYPES, "[method]outgoing-request.set-authority") int32_t ask_authority(int32_t, int32_t, const char *, int32_t);
IMPORT(TYPES, "[method]outgoing-request.set-path-with-query") int32_t ask_path(int32_t, int32_t, const char *, int32_t);
IMPORT("wasi:http/outgoing-handler@0.2.0", "handle") void ask(int32_t, int32_t, int32_t, LargeResult *);
IMPORT(TYPES, "[method]future-incoming-response.subscribe") int32_t future_subscribe(int32_t);
IMPORT("wasi:io/poll@0.2.0", "[method]pollable.block") void pollable_block(int32_t);
IMPORT("wasi:io/poll@0.2.0", "[resource-drop]pollable") void pollable_drop(int32_t);
IMPORT(TYPES, "[method]future-incoming-response.get") void future_get(int32_t, LargeResult *);
IMPORT(TYPES, "[method]incoming-response.consume") void answer_consume(int32_t, Result *);

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t size, size_t align, size_t wanted) {
    return realloc(old, wanted);
}

// All of a body, of either kind, when `consume` has given it.
static char *whole(int32_t body, int32_t *length) {
    Result stream, part;
    body_stream(body, &stream);
    char *all = malloc(1);
    *length = 0;
    for (;;) {
        stream_read(stream.value, 65536, &part);
        if (part.tag)
            return all;
        all = realloc(all, *length + part.length + 1);
        memcpy(all + *length, (char *)part.value, part.length);
        *length += part.length;
        free((char *)part.value);
    }
}

static void say(int32_t stream, const char *text, int32_t length) {
    Result written;
    for (int32_t at = 0; at < length; at += 4096)
        stream_write(stream, text + at, length - at < 4096 ? length - at : 4096, &written);
}

static void append(int32_t fields, const char *name, const char *value) {
    Result appended;
    fields_append(fields, name, strlen(name), value, strlen(value), &appended);
}

// What another server says; else the number of the error.
static char *ask_for(const char *authority, int32_t *length) {
    LargeResult asked, got;
    Result body;
    int32_t request = ask_new(fields_new());
    ask_scheme(request, 1, 0, 0, 0);
    ask_authority(request, 1, authority, strlen(authority));
    ask_path(request, 1, "/", 1);
    ask(request, 0, 0, &asked);
    char *failed = malloc(40);
    if (asked.tag) {
        *length = sprintf(failed, "refused %d", *(uint8_t *)&asked.rest[0]);
        return failed;
    }
    int32_t future = (int32_t)asked.rest[0], ready = future_subscribe(future);
    pollable_block(ready);
    pollable_drop(ready);
    future_get(future, &got);
    if (*(uint8_t *)&got.rest[1]) {
        *length = sprintf(failed, "failed %d", *(uint8_t *)&got.rest[2]);
        return failed;
    }
    answer_consume((int32_t)got.rest[2], &body);
    return whole(body.value, length);
}

__attribute__((export_name("wasi:http/incoming-handler@0.2.0#handle"))) void handle(int32_t request, int32_t out) {
    static const char *METHODS[] = {"GET", "HEAD", "POST", "PUT", "DELETE"};
    Result method, target, body, stream;
    request_method(request, &method);
    request_path(request, &target);
    char path[256] = "";
    if (target.tag && target.length < 255)
        memcpy(path, (char *)target.value, target.length);
    request_consume(request, &body);
    int32_t length;
    char *text = whole(body.value, &length);
    fprintf(stderr, "asked for %s\n", path);

    int32_t headers = fields_new(), status = 200, endless = 0;
    append(headers, "content-type", "text/x-test");
    if (!strncmp(path, "/silent", 7))
        return;
    if (!strncmp(path, "/trap", 5))
        __builtin_trap();
    if (!strncmp(path, "/status/", 8))
        status = atoi(path + 8);
    if (!strncmp(path, "/flood", 6)) {
        endless = 1;
        text = path;
        length = strlen(path);
    }
    if (!strncmp(path, "/cookies", 8)) {
        append(headers, "set-cookie", "a=1");
        append(headers, "set-cookie", "b=2");
    }
    if (!strncmp(path, "/ask?", 5))
        text = ask_for(path + 5, &length);
    if (!strncmp(path, "/echo", 5)) {
        char *all = malloc(length + 300);
        int32_t begin = sprintf(all, "%s %s ", method.tag < 5 ? METHODS[method.tag] : "?", path);
        memcpy(all + begin, text, length);
        text = all;
        length += begin;
    }
    if (!strcmp(path, "/") && length == 3 && !memcmp(text, "503", 3))
        status = 503;

    int32_t response = response_new(headers);
    response_status(response, status);
    response_body(response, &body);
    answer_with(out, 0, response, 0, 0, 0, 0, 0, 0);
    body_write(body.value, &stream);
    do
        say(stream.value, text, length);
    while (endless);
    stream_drop(stream.value);
    LargeResult finished;
    body_finish(body.value, 0, 0, &finished);
}
