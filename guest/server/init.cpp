#include "init.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "counters.h"
#include "log.h"

namespace shmgemm::server {
namespace {

constexpr char kDevice[] = "/dev/sst0";
constexpr char kModule[] = "/lib/modules/virtio-sst.ko";
constexpr char kAgent[] = "/sbin/guest-agent";
constexpr std::int64_t kRespawnNs = 1'000'000'000;

pid_t agent = 0;
std::int64_t next_spawn_ns = 0;

void complain(const std::string& what) { Log::note(what + ": " + strerror(errno)); }

void mount_at(const char* source, const char* target, const char* type, const char* options) {
  mkdir(target, 0755);
  // The kernel may have mounted devtmpfs itself.
  if (mount(source, target, type, 0, options) != 0 && errno != EBUSY) {
    complain(std::string("mounting ") + target);
  }
}

// A kernel started without /dev/console in its image gives its first process no descriptors.
void open_console() {
  const int console = open("/dev/console", O_RDWR);
  if (console < 0) return;
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) dup2(console, fd);
  }
  if (console > 2) close(console);
}

void mount_shared() {
  mkdir("/mnt", 0755);
  mkdir("/mnt/shared", 0755);
  if (mount("shared", "/mnt/shared", "9p", 0, "trans=virtio,version=9p2000.L,msize=262144") != 0) {
    Log::debug(std::string("nothing at /mnt/shared: ") + strerror(errno));
  }
}

void load_module() {
  if (access(kDevice, F_OK) == 0) return;
  const int file = open(kModule, O_RDONLY | O_CLOEXEC);
  if (file < 0) return complain(kModule);
  if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST) complain(kModule);
  close(file);
}

sockaddr address_of(const char* text) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, text, &address.sin_addr);
  sockaddr generic;
  std::memcpy(&generic, &address, sizeof generic);
  return generic;
}

void bring_up(int fd, const char* name, const char* address, const char* mask) {
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_addr = address_of(address);
  if (ioctl(fd, SIOCSIFADDR, &request) != 0) return complain(std::string(name) + ": address");
  request.ifr_netmask = address_of(mask);
  if (ioctl(fd, SIOCSIFNETMASK, &request) != 0) complain(std::string(name) + ": netmask");
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) return complain(name);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) complain(std::string(name) + ": up");
}

// The addresses of QEMU's user network.
void set_up_network() {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return complain("network");
  bring_up(fd, "lo", "127.0.0.1", "255.0.0.0");
  bring_up(fd, "eth0", "10.0.2.15", "255.255.255.0");
  rtentry route{};
  route.rt_dst = address_of("0.0.0.0");
  route.rt_genmask = address_of("0.0.0.0");
  route.rt_gateway = address_of("10.0.2.2");
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (ioctl(fd, SIOCADDRT, &route) != 0 && errno != EEXIST) complain("default route");
  close(fd);
}

void spawn_agent() {
  next_spawn_ns = now_ns() + kRespawnNs;
  if (access(kAgent, X_OK) != 0) return;
  agent = fork();
  if (agent != 0) return;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  setsid();
  execl(kAgent, kAgent, static_cast<char*>(nullptr));
  _exit(127);
}

}  // namespace

void init_begin() {
  mount_at("proc", "/proc", "proc", nullptr);
  mount_at("sys", "/sys", "sysfs", nullptr);
  mount_at("dev", "/dev", "devtmpfs", nullptr);
  mount_at("devpts", "/dev/pts", "devpts", nullptr);
  mount_at("tmp", "/tmp", "tmpfs", nullptr);
  open_console();
  setenv("PATH", "/sbin:/bin:/usr/sbin:/usr/bin", 1);
  mount_shared();
  load_module();
  set_up_network();
  sethostname("guest", 5);
}

void init_tick() {
  for (;;) {
    const pid_t ended = waitpid(-1, nullptr, WNOHANG);
    if (ended <= 0) break;
    if (ended == agent) agent = 0;
  }
  if (agent == 0 && now_ns() >= next_spawn_ns) spawn_agent();
}

void init_end() {
  sync();
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

}  // namespace shmgemm::server
