// What the tests run as a module of WASI preview 1, and as a component made of it. The first argument says what it does.

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int calls;

static int deeper(int count) {
    volatile int here[64] = {count};
    return deeper(here[0] + 1) + here[1];
}

static void echo(void) {
    int byte;
    while ((byte = getchar()) != EOF)
        putchar(byte);
}

static int copy(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return 1;
    }
    int byte;
    while ((byte = fgetc(file)) != EOF)
        putchar(byte);
    return 0;
}

static int note(const char *path) {
    FILE *file = fopen(path, "a");
    if (!file) {
        perror(path);
        return 1;
    }
    fputs("noted\n", file);
    return fclose(file);
}

int main(int count, char **words) {
    const char *does = count > 1 ? words[1] : "";
    const char *what = count > 2 ? words[2] : "";
    if (!strcmp(does, "echo")) {
        fprintf(stderr, "working\n");
        if (count > 2)
            printf("%s ", what);
        echo();
    } else if (!strcmp(does, "calls")) {
        printf("%d", ++calls);
    } else if (!strcmp(does, "exit")) {
        fprintf(stderr, "no such customer\n");
        return atoi(what);
    } else if (!strcmp(does, "trap")) {
        __builtin_trap();
    } else if (!strcmp(does, "spin")) {
        for (volatile int turns = 0;; turns++)
            ;
    } else if (!strcmp(does, "sleep")) {
        sleep(1000);
    } else if (!strcmp(does, "eat")) {
        for (;;) {
            char *volatile more = malloc(1 << 20);
            if (!more)
                abort();
            memset(more, 1, 1 << 20);
        }
    } else if (!strcmp(does, "flood")) {
        for (;;)
            puts("0123456789012345678901234567890123456789");
    } else if (!strcmp(does, "chatter")) {
        for (int line = 0; line < 100000; line++)
            fprintf(stderr, "line %d\n", line);
        puts("done");
    } else if (!strcmp(does, "recurse")) {
        return deeper(count);
    } else if (!strcmp(does, "env")) {
        for (char **variable = environ; *variable; variable++)
            puts(*variable);
    } else if (!strcmp(does, "read")) {
        return copy(what);
    } else if (!strcmp(does, "note")) {
        return note(what);
    }
    return 0;
}
