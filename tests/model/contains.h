// For tests of messages: every part must stand in the text, and a failure shows the text.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

namespace shmgemm::model {

inline void expect_parts(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
  }
}

}  // namespace shmgemm::model
