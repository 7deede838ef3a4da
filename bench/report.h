// The figures of a benchmark: rows of measures, columns of peers, several runs of each.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::bench {

struct Measure {
  std::string name;  // "hit, 1 GiB blob, 8 clients"
  std::string unit;  // "MiB/s"
  int decimals = 0;
  std::string goal = {};  // what issue 6 asks of Staithe, in its words
};

class Report {
 public:
  explicit Report(std::vector<std::string> peers) : peers_(std::move(peers)) {}

  // One run's figure. Rows stand in the order of their first figure.
  void add(const Measure& measure, const std::string& peer, double value);
  // Something about the machine, the versions or the options.
  void note(std::string_view name, std::string_view value);

  // Medians, and how far the runs lie apart where that is more than a percent.
  std::string table() const;
  // Everything, each run.
  std::string json() const;
  // The table on standard output, and all of it into this file, if it has a name.
  void print(const std::string& json_file) const;

 private:
  struct Row {
    Measure measure;
    std::map<std::string, std::vector<double>> runs;  // by peer
  };
  std::vector<std::string> peers_;
  std::vector<Row> rows_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

}  // namespace staithe::bench
