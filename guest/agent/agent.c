/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's agent: runs a command, or a shell on a terminal, for `shmgemm guest exec` and
 * `shell`. It listens on TCP port 9998, which QEMU forwards from the host's loopback; a caller
 * shows the token of /etc/agent-token, which the host put there. A process of its own serves each
 * connection, and kills what it runs when the caller hangs up.
 *
 * Little endian. The caller opens with struct opening and `bytes` bytes of words, each ended by a
 * 0. Then frames, struct head and content, go both ways; the agent's last one is STATUS.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT 9998
#define TOKEN_BYTES 32
#define MAX_WORDS_BYTES 65536u
#define MAX_CONTENT_BYTES 65536u
#define PATIENCE_S 10 /* for the opening */

enum { KIND_INPUT = 1, KIND_OUTPUT = 2, KIND_STATUS = 3, KIND_SIZE = 4 };

struct opening {
  char token[TOKEN_BYTES];
  uint32_t terminal; /* 1: run on a terminal, input and output are its */
  uint16_t rows;
  uint16_t columns;
  uint32_t bytes;
};

struct head {
  uint32_t kind;
  uint32_t bytes; /* INPUT of 0 bytes: no more will come */
};

static int read_all(int fd, void* to, size_t bytes) {
  for (size_t got = 0; got < bytes;) {
    ssize_t some = read(fd, (char*)to + got, bytes - got);
    if (some < 0 && errno == EINTR) continue;
    if (some <= 0) return -1;
    got += (size_t)some;
  }
  return 0;
}

static int write_all(int fd, const void* from, size_t bytes) {
  for (size_t put = 0; put < bytes;) {
    ssize_t some = write(fd, (const char*)from + put, bytes - put);
    if (some < 0 && errno == EINTR) continue;
    if (some <= 0) return -1;
    put += (size_t)some;
  }
  return 0;
}

static int send_frame(int fd, uint32_t kind, const void* content, uint32_t bytes) {
  const struct head head = {kind, bytes};
  return write_all(fd, &head, sizeof(head)) || write_all(fd, content, bytes) ? -1 : 0;
}

static int token_is(const char* given) {
  char token[TOKEN_BYTES];
  unsigned different = 0;
  int fd = open("/etc/agent-token", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  int failed = read_all(fd, token, sizeof(token));
  close(fd);
  for (int i = 0; i < TOKEN_BYTES; i++) different |= (unsigned char)(token[i] ^ given[i]);
  return !failed && !different;
}

/* The words of a command, a NULL after the last. `text` keeps them. */
static char** split(char* text, uint32_t bytes) {
  size_t count = 0;
  for (uint32_t i = 0; i < bytes; i++) count += text[i] == 0;
  char** words = calloc(count + 1, sizeof(*words));
  if (!words || !count || text[bytes - 1] != 0) return NULL;
  for (size_t i = 0; i < count; i++) {
    words[i] = text;
    text += strlen(text) + 1;
  }
  return words;
}

/* The child's side: never returns. */
static void run(char** words, int input, int output, int terminal) {
  signal(SIGPIPE, SIG_DFL);
  setsid();
  if (terminal) ioctl(input, TIOCSCTTY, 0);
  dup2(input, 0);
  dup2(output, 1);
  dup2(output, 2);
  setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
  setenv("HOME", "/", 1);
  setenv("TERM", "linux", 0);
  execvp(words[0], words);
  fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
  _exit(errno == ENOENT ? 127 : 126);
}

static int open_terminal(const struct opening* opening, int* master, int* slave) {
  const struct winsize size = {.ws_row = opening->rows, .ws_col = opening->columns};
  *master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (*master < 0 || grantpt(*master) || unlockpt(*master)) return -1;
  *slave = open(ptsname(*master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  return *slave < 0 || ioctl(*slave, TIOCSWINSZ, &size) ? -1 : 0;
}

/* Starts the command. `to` and `from` become this side's ends of its input and output. */
static pid_t start(const struct opening* opening, char** words, int* to, int* from) {
  int in[2], out[2];
  if (opening->terminal) {
    if (open_terminal(opening, &out[0], &in[0])) return -1;
    out[1] = in[0];
    in[1] = out[0];
  } else if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
    return -1;
  }
  pid_t child = fork();
  if (child == 0) run(words, in[0], out[1], opening->terminal != 0);
  close(in[0]);
  if (!opening->terminal) close(out[1]);
  *to = in[1];
  *from = out[0];
  return child;
}

/* What runs, as its relay sees it; `held` bytes at `at` of `input` wait until it reads them. */
struct relay {
  int caller, to, from; /* `to` is -1 once its input has ended */
  int terminal;
  size_t at, held;
  char input[MAX_CONTENT_BYTES];
  char output[MAX_CONTENT_BYTES];
};

static void end_input(struct relay* relay) {
  if (!relay->terminal && relay->to >= 0) close(relay->to);
  relay->to = -1;
  relay->held = 0;
}

/* One frame of the caller. Returns -1 where it hung up or sent nonsense. */
static int take_frame(struct relay* relay) {
  struct head head;
  if (read_all(relay->caller, &head, sizeof(head)) || head.bytes > sizeof(relay->input) ||
      read_all(relay->caller, relay->input, head.bytes))
    return -1;
  if (head.kind == KIND_SIZE && head.bytes == 4) {
    struct winsize size = {0};
    memcpy(&size, relay->input, 4);
    if (relay->terminal) ioctl(relay->from, TIOCSWINSZ, &size);
  } else if (head.kind != KIND_INPUT) {
    return -1;
  } else if (head.bytes == 0) {
    end_input(relay);
  } else if (relay->to >= 0) {
    relay->at = 0;
    relay->held = head.bytes;
  }
  return 0;
}

static void give_input(struct relay* relay) {
  ssize_t bytes = write(relay->to, relay->input + relay->at, relay->held);
  if (bytes < 0 && errno != EAGAIN && errno != EINTR) end_input(relay);
  if (bytes > 0) {
    relay->at += (size_t)bytes;
    relay->held -= (size_t)bytes;
  }
}

/* Until the command's output ends. Returns -1 where the caller hung up. */
static int run_relay(struct relay* relay) {
  fcntl(relay->to, F_SETFL, fcntl(relay->to, F_GETFL) | O_NONBLOCK);
  for (;;) {
    struct pollfd ready[3] = {{relay->from, POLLIN, 0},
                              {relay->caller, relay->held ? 0 : POLLIN, 0},
                              {relay->held ? relay->to : -1, POLLOUT, 0}};
    if (poll(ready, 3, -1) < 0 && errno != EINTR) return -1;
    if (ready[0].revents) {
      ssize_t bytes = read(relay->from, relay->output, sizeof(relay->output));
      if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (bytes <= 0) return 0; /* a terminal says EIO */
      if (send_frame(relay->caller, KIND_OUTPUT, relay->output, (uint32_t)bytes)) return -1;
    }
    if (ready[2].revents) give_input(relay);
    if (ready[1].revents && (relay->held || take_frame(relay))) return -1;
  }
}

static void serve(int caller) {
  const struct timeval patience = {PATIENCE_S, 0}, forever = {0, 0};
  static struct relay relay;
  struct opening opening;
  int state = 0;
  setsockopt(caller, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (read_all(caller, &opening, sizeof(opening)) || !token_is(opening.token)) return;
  if (opening.bytes == 0 || opening.bytes > MAX_WORDS_BYTES) return;
  char* text = malloc(opening.bytes);
  if (!text || read_all(caller, text, opening.bytes)) return;
  char** words = split(text, opening.bytes);
  if (!words) return;
  setsockopt(caller, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
  relay.caller = caller;
  relay.terminal = opening.terminal != 0;
  pid_t child = start(&opening, words, &relay.to, &relay.from);
  if (child < 0) return;
  if (run_relay(&relay)) kill(-child, SIGKILL);
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) continue;
  const uint32_t status = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  send_frame(caller, KIND_STATUS, &status, sizeof(status));
}

int main(void) {
  const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  const int on = 1;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(listener, (const struct sockaddr*)&address, sizeof(address)) || listen(listener, 16)) {
    perror("guest-agent: TCP port 9998");
    return 1;
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int caller = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (caller < 0) continue;
    if (fork() == 0) {
      signal(SIGCHLD, SIG_DFL);
      setsockopt(caller, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      close(listener);
      serve(caller);
      _exit(0);
    }
    close(caller);
  }
}
