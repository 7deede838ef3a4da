// A line chart as SVG, written by hand: axes, grid, labels, a legend; nothing to load.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace staithe::bench {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y; both above 0 on a logarithmic axis
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = true;
  bool log_y = true;
  std::vector<Series> series = {};

  // The whole document. Nothing but the frame if there are no points.
  std::string svg() const;
  // Throws Failure if it cannot be written.
  void write(const std::filesystem::path& path) const;
};

}  // namespace staithe::bench
