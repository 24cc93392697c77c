// `std::format` for compilers whose library lacks <format> (gcc before 13).
// Supports plain `{}` fields only, as mlx-c needs. Force-included, because mlx-c does not include
// it.
#pragma once
#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {
template <typename... Args>
string format(string_view pattern, const Args&... args) {
  ostringstream out;
  auto put = [&](const auto& value) {
    auto field = pattern.find("{}");
    out << pattern.substr(0, field);
    if (field == string_view::npos) {
      pattern = {};
      return;
    }
    out << value;
    pattern.remove_prefix(field + 2);
  };
  (put(args), ...);
  out << pattern;
  return out.str();
}
} // namespace std
#endif
