#include "model/plugin.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

namespace shmgemm::model {
namespace {

constexpr char kExpected[] =
    "; expected a shared object built with g++ -shared -fPIC $(shmgemm plugin --cflags)";

Loading* g_loading = nullptr;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw PluginError("plug-in \"" + path + "\": " + why);
}

std::string absolute(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                         &std::free);
  if (!real) refuse(path, std::strerror(errno) + std::string(kExpected));
  return real.get();
}

// Tells a file from the one that stood there when it was loaded.
struct Identity {
  dev_t device;
  ino_t inode;
  off_t bytes;
  time_t seconds;
  long nanoseconds;

  bool operator==(const Identity& o) const {
    return std::tie(device, inode, bytes, seconds, nanoseconds) ==
           std::tie(o.device, o.inode, o.bytes, o.seconds, o.nanoseconds);
  }
};

Identity identity_of(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) refuse(path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) refuse(path, std::string("not a file") + kExpected);
  return {status.st_dev, status.st_ino, status.st_size, status.st_mtim.tv_sec,
          status.st_mtim.tv_nsec};
}

Dl_info own_library() {
  Dl_info own{};
  if (dladdr(reinterpret_cast<void*>(&load_plugin), &own) == 0) {
    throw PluginError("plug-ins cannot be loaded into this process: its own library is not found");
  }
  return own;
}

// Whole, and not only by its first bytes: the loader maps what the headers promise, and touching
// what a cut file lacks would be a SIGBUS.
void check_elf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(path, std::string("cannot be read: ") + std::strerror(errno));
  Elf64_Ehdr head{};
  file.read(reinterpret_cast<char*>(&head), sizeof head);
  if (!file || std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) {
    refuse(path, std::string("not an ELF file") + kExpected);
  }
  const auto* own = static_cast<const Elf64_Ehdr*>(own_library().dli_fbase);
  if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != own->e_machine ||
      head.e_type != ET_DYN || head.e_phentsize != sizeof(Elf64_Phdr)) {
    refuse(path, std::string("an ELF file, but not a shared object for this machine") + kExpected);
  }
  const auto bytes = static_cast<std::uint64_t>(identity_of(path).bytes);
  for (unsigned i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr segment{};
    file.seekg(static_cast<std::streamoff>(head.e_phoff + i * sizeof segment));
    file.read(reinterpret_cast<char*>(&segment), sizeof segment);
    std::uint64_t end = 0;
    if (!file || __builtin_add_overflow(segment.p_offset, segment.p_filesz, &end) || end > bytes) {
      refuse(path, "a shared object that is cut short: it has " + std::to_string(bytes) +
                       " bytes, its headers promise more; build or copy it again");
    }
  }
}

// Python loads this library for one module alone; a plug-in resolves against what is global.
void make_own_symbols_global() {
  if (dlopen(own_library().dli_fname, RTLD_NOLOAD | RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw PluginError(std::string("plug-ins cannot be loaded into this process: ") + dlerror());
  }
}

// Unless release()d, forgets what registered and unloads the file.
class Handle {
 public:
  explicit Handle(const std::string& path) {
    if (void* earlier = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_NOW)) {
      dlclose(earlier);
      refuse(path,
             "this process holds an earlier load of it, by another name or from a try that failed;"
             " start a new process");
    }
    try {
      handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    } catch (const std::exception& error) {
      refuse(path, std::string("its static objects threw: ") + error.what());
    }
    if (handle_ == nullptr) {
      refuse(path, std::string("the loader says: ") + dlerror() + kExpected);
    }
  }
  ~Handle() {
    if (handle_ != nullptr) dlclose(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  void keep() { handle_ = nullptr; }

 private:
  void* handle_ = nullptr;
};

}  // namespace

Loading::Loading() { g_loading = this; }
Loading::~Loading() { g_loading = nullptr; }
Loading* Loading::current() { return g_loading; }

void Loading::take(const ModelInfo& info, std::uint32_t interface_version, std::size_t info_bytes) {
  if (!problem_.empty()) return;
  if (interface_version != kInterfaceVersion) {
    problem_ = "built against version " + std::to_string(interface_version) +
               " of the model interface, shmgemm " SHMGEMM_VERSION " expects version " +
               std::to_string(kInterfaceVersion) + "; build it again";
  } else if (info_bytes != sizeof(ModelInfo)) {
    problem_ = "built with another C++ standard library: its ModelInfo has " +
               std::to_string(info_bytes) + " bytes, " + std::to_string(sizeof(ModelInfo)) +
               " expected (g++ or clang++ with libstdc++, _GLIBCXX_USE_CXX11_ABI=1)";
  } else {
    infos_.push_back(info);
  }
}

void load_plugin(const std::string& given) {
  static std::map<std::string, Identity> loaded;
  const std::string path = absolute(given);
  const Identity identity = identity_of(path);
  if (const auto found = loaded.find(path); found != loaded.end()) {
    if (found->second == identity) return;
    refuse(path, "the file has changed since this process loaded it; start a new process");
  }
  check_elf(path);
  make_own_symbols_global();
  // Destroyed from the last to the first: what registered goes before the code behind it.
  std::unique_ptr<Handle> handle;
  Loading loading;
  handle = std::make_unique<Handle>(path);
  if (!loading.problem().empty()) refuse(path, loading.problem());
  std::vector<ModelInfo> infos = loading.take_infos();
  if (infos.empty()) {
    refuse(path, "registers no timing model; expected a static shmgemm::model::Registration");
  }
  for (ModelInfo& info : infos) info.file = path;
  try {
    add_models(std::move(infos));
  } catch (const std::exception& error) {
    refuse(path, error.what());
  }
  handle->keep();
  loaded.emplace(path, identity);
}

}  // namespace shmgemm::model
