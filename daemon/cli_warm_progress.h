// How far a warm is, from the lines of POST /v1/warm (warming.h), for a terminal or a pipe. Pure.
#pragma once

#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "daemon/terminal.h"

namespace staithe::daemon {

class WarmProgress {
 public:
  // Takes a line that came `seconds` after the begin.
  void add(const boost::json::value& line, double seconds);

  // A bar for each blob under way, and one for all; every line fits the width.
  std::vector<std::string> bars(double seconds, const Style& style) const;
  // The last of these.
  std::string all(double seconds, const Style& style) const;

 private:
  struct Image {
    double total = 0;
    double bytes = 0;  // of the blobs that have ended
    bool ended = false;
  };
  struct Blob {
    std::string image;
    double bytes = 0;
    double total = 0;
    double told_speed = 0;  // by the daemon, which may not know it
    double first_bytes = 0;
    double first_seconds = 0;
    double last_seconds = 0;

    double speed() const;
  };

  std::map<std::string, Image> images_;
  std::map<std::string, Blob> blobs_;  // under way, by digest
  double fetched_ = 0;                 // of the blobs that have ended
  double first_seconds_ = -1;          // when the first blob began
  std::size_t client_fills_ = 0;
};

// One image's end as a line, "r/app:1  warm  1.2 GiB"; empty for other lines.
std::string render_warm_end(const boost::json::value& line);
// The last line, the sum.
std::string render_warm_sum(const boost::json::value& line);
// A sentence for each image that failed, "r/app:1: ...".
std::vector<std::string> warm_errors(const boost::json::value& line);

}  // namespace staithe::daemon
