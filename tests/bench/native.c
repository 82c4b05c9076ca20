/* The least that a function of the runtime `provided` is: a client of the Lambda Runtime API over one connection that is
   kept, one invocation after another. It answers a request in Lambda's form with the request's body, and all else with
   null. Where there is no API it is the floor of a cold start: it answers what comes on stdin with what came. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (8 << 20)

static char in[SIZE + 1], out[SIZE];

static void send_all(int to, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = write(to, bytes, length);
        if (sent <= 0) exit(1);
        bytes += sent, length -= sent;
    }
}

/* Reads an answer of the API and gives its body. */
static char *receive(int from, size_t *length) {
    size_t have = 0;
    char *body = NULL;
    do {
        ssize_t got = read(from, in + have, SIZE - have);
        if (got <= 0) exit(0);
        in[have += got] = 0;
        if (!body && (body = strstr(in, "\r\n\r\n"))) {
            body += 4;
            char *header = strcasestr(in, "\r\ncontent-length:");
            *length = header && header < body ? strtoul(header + 17, NULL, 10) : 0;
        }
    } while (!body || have < (size_t)(body - in) + *length);
    return body;
}

/* What the invocation is answered with, written to `to`. JSON's escapes of control characters are not undone. */
static size_t answer(const char *event, size_t length, char *to) {
    const char *end = event + length, *at = memmem(event, length, "\"body\":\"", 8);
    if (!at) return memcpy(to, "null", 4), 4;
    char *begun = to;
    for (at += 8; at < end && *at != '"'; at++) {
        if (*at == '\\') at++;
        *to++ = *at;
    }
    return to - begun;
}

int main(void) {
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    if (!api) {
        ssize_t got = read(0, in, SIZE);
        if (got > 0) send_all(1, in, got);
        return 0;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(strchr(api, ':') + 1))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&address, sizeof address)) return 1;
    for (;;) {
        static const char next[] = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: api\r\n\r\n";
        static char body[SIZE];
        char id[64] = "";
        size_t length;
        send_all(connection, next, sizeof next - 1);
        char *event = receive(connection, &length);
        char *header = strcasestr(in, "lambda-runtime-aws-request-id:");
        if (header) sscanf(header + 30, " %63[^\r]", id);
        size_t size = answer(event, length, body);
        int head = sprintf(out, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nhost: api\r\n"
                                "content-length: %zu\r\n\r\n", id, size);
        if (head + size > SIZE) return 1;
        memcpy(out + head, body, size);
        send_all(connection, out, head + size);
        receive(connection, &length);
    }
}
