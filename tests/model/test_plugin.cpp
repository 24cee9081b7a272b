// Plug-ins: what loads, what is refused and why, and what is left behind.
// tests/plugins/bad_model.cpp is the one that loads; how Python sees them is
// tests/python/test_plugins.py.
#include "model/plugin.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "contains.h"
#include "model/simulate.h"

namespace shmgemm::model {
namespace {

namespace fs = std::filesystem;

class Plugin : public testing::Test {
 protected:
  Plugin() {
    std::string name = fs::temp_directory_path() / "shmgemm-plugin-XXXXXX";
    folder = mkdtemp(name.data());
  }
  ~Plugin() override { fs::remove_all(folder); }

  // The file name, and with it why it does not load.
  static std::string refusal(const fs::path& path) {
    const std::size_t before = models().size();
    try {
      load_plugin(path);
    } catch (const PluginError& error) {
      EXPECT_EQ(models().size(), before);
      expect_parts(error.what(), {path.filename().c_str()});
      return error.what();
    }
    return "";
  }

  fs::path write(const std::string& name, const std::string& content) const {
    std::ofstream(folder / name, std::ios::binary) << content;
    return folder / name;
  }

  fs::path folder;
};

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_F(Plugin, ItsModelIsOneOfTheModels) {
  load_plugin(SHMGEMM_BAD_MODEL);
  load_plugin(SHMGEMM_BAD_MODEL);
  const ModelInfo& info = find_model("bad");
  EXPECT_EQ(info.file, fs::canonical(SHMGEMM_BAD_MODEL));
  EXPECT_EQ(find_model("scalesim_ws").file, "");
  EXPECT_TRUE(std::is_sorted(models().begin(), models().end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));
  GemmShape shape;
  shape.m = shape.n = shape.k = 2;
  EXPECT_EQ(simulate(Hardware({{"model", "bad"}, {"cycles", "77"}}), shape).timing.total(), 77u);
}

TEST_F(Plugin, WhatIsNoSharedObjectIsRefused) {
  expect_parts(refusal(folder / "absent.so"), {"No such file", "expected a shared object"});
  expect_parts(refusal(folder), {"not a file"});
  expect_parts(refusal(write("text.so", "int main() {}")), {"not an ELF file", "g++ -shared"});
  expect_parts(refusal(write("empty.so", "")), {"not an ELF file"});
  std::string object = content_of(SHMGEMM_BAD_MODEL);
  object[16] = 1;  // e_type: ET_REL
  expect_parts(refusal(write("object.so", object)), {"not a shared object for this machine"});
  std::string foreign = content_of(SHMGEMM_BAD_MODEL);
  foreign[18] = 8;  // e_machine: MIPS
  expect_parts(refusal(write("foreign.so", foreign)), {"not a shared object for this machine"});
  ASSERT_EQ(mkfifo((folder / "fifo.so").c_str(), 0600), 0);
  expect_parts(refusal(folder / "fifo.so"), {"not a file"});
}

TEST_F(Plugin, ACutFileIsRefusedAndDoesNotCrash) {
  const std::string whole = content_of(SHMGEMM_BAD_MODEL);
  for (const std::size_t bytes : {std::size_t{3}, std::size_t{63}, std::size_t{64},
                                  std::size_t{200}, std::size_t{4096}, std::size_t{16384}}) {
    EXPECT_NE(refusal(write("cut.so", whole.substr(0, bytes))), "") << bytes;
  }
}

TEST_F(Plugin, ANameIsTakenOnce) {
  load_plugin(SHMGEMM_BAD_MODEL);
  fs::copy(SHMGEMM_BAD_MODEL, folder / "copy.so");
  expect_parts(refusal(folder / "copy.so"),
               {"two models are named \"bad\"", fs::canonical(SHMGEMM_BAD_MODEL).c_str()});
}

TEST_F(Plugin, ALibraryWithoutAModelIsRefused) {
  Loading loading;  // what load_plugin() asks
  EXPECT_TRUE(loading.take_infos().empty());
  EXPECT_EQ(loading.problem(), "");
}

TEST_F(Plugin, AnotherInterfaceIsSaidAndNotLookedAt) {
  const ModelInfo* unreadable = nullptr;
  {
    Loading loading;
    const Registration old{*reinterpret_cast<const ModelInfo*>(&unreadable), 7, 1};
    expect_parts(loading.problem(), {"version 7", "expects version 2", "build it again"});
  }
  Loading loading;
  const Registration foreign{*reinterpret_cast<const ModelInfo*>(&unreadable), kInterfaceVersion,
                             24};
  expect_parts(loading.problem(), {"another C++ standard library", "24 bytes"});
}

}  // namespace
}  // namespace shmgemm::model
