#include "bench/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>

#include "cache/error.h"

namespace staithe::bench {

namespace {

constexpr double width = 860;
constexpr double height = 440;
constexpr double left = 80;
constexpr double right = 240;  // with the legend
constexpr double top = 40;
constexpr double bottom = 60;
// Told apart by people who see fewer colours, too.
constexpr std::array colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                "#e69f00", "#56b4e9", "#000000", "#999933"};

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "&lt;";
    } else if (c == '&') {
      safe += "&amp;";
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string number(double value) {
  std::array<char, 32> text;
  if (value >= 1'000'000 || (value > 0 && value < 0.01)) {
    std::snprintf(text.data(), text.size(), "%.0e", value);
  } else if (value >= 1000) {
    std::snprintf(text.data(), text.size(), "%.0f", value);
  } else {
    std::snprintf(text.data(), text.size(), "%.3g", value);
  }
  return text.data();
}

// From values to places along one side of the frame.
class Axis {
 public:
  Axis(bool logarithmic, double from, double to)
      : logarithmic_(logarithmic), from_(from), to_(to) {}

  void include(double value) {
    low_ = std::min(low_, value);
    high_ = std::max(high_, value);
  }
  // To whole decades, or to 0 and a round number.
  void settle() {
    if (low_ > high_) low_ = high_ = 1;
    if (logarithmic_) {
      low_ = std::pow(10, std::floor(std::log10(low_)));
      high_ = std::pow(10, std::ceil(std::log10(high_)));
      if (high_ <= low_) high_ = low_ * 10;
    } else {
      low_ = 0;
      step_ = std::pow(10, std::floor(std::log10(std::max(high_, 1e-9))));
      if (high_ / step_ < 4) step_ /= 2;
      high_ = std::max(step_, std::ceil(high_ / step_) * step_);
    }
  }
  double place(double value) const {
    const double share = logarithmic_ ? std::log(value / low_) / std::log(high_ / low_)
                                      : (value - low_) / (high_ - low_);
    return from_ + share * (to_ - from_);
  }
  std::vector<double> ticks() const {
    std::vector<double> ticks;
    for (double tick = low_; tick <= high_ * 1.0001; tick = logarithmic_ ? tick * 10 : tick + step_)
      ticks.push_back(tick);
    return ticks;
  }

 private:
  bool logarithmic_;
  double from_;
  double to_;
  double low_ = std::numeric_limits<double>::max();
  double high_ = std::numeric_limits<double>::lowest();
  double step_ = 1;
};

}  // namespace

std::string Plot::svg() const {
  Axis x(log_x, left, width - right);
  Axis y(log_y, height - bottom, top);
  for (const Series& one : series)
    for (const auto& [at, value] : one.points) {
      x.include(at);
      y.include(value);
    }
  x.settle();
  y.settle();

  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << width << ' ' << height
      << "\" font-family=\"sans-serif\" font-size=\"12\">\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  const auto text = [&](double at_x, double at_y, const std::string& anchor,
                        const std::string& words, const std::string& more = "") {
    out << "<text x=\"" << at_x << "\" y=\"" << at_y << "\" text-anchor=\"" << anchor << "\""
        << more << ">" << escaped(words) << "</text>\n";
  };
  const auto line = [&](double x1, double y1, double x2, double y2, const char* colour) {
    out << "<line x1=\"" << x1 << "\" y1=\"" << y1 << "\" x2=\"" << x2 << "\" y2=\"" << y2
        << "\" stroke=\"" << colour << "\"/>\n";
  };
  text((left + width - right) / 2, top - 16, "middle", title, " font-size=\"15\"");
  for (const double tick : x.ticks()) {
    line(x.place(tick), top, x.place(tick), height - bottom, "#dddddd");
    text(x.place(tick), height - bottom + 18, "middle", number(tick));
  }
  for (const double tick : y.ticks()) {
    line(left, y.place(tick), width - right, y.place(tick), "#dddddd");
    text(left - 8, y.place(tick) + 4, "end", number(tick));
  }
  line(left, height - bottom, width - right, height - bottom, "black");
  line(left, top, left, height - bottom, "black");
  text((left + width - right) / 2, height - 18, "middle", x_label);
  text(20, height / 2, "middle", y_label,
       " transform=\"rotate(-90 20 " + number(height / 2) + ")\"");
  for (std::size_t i = 0; i < series.size(); ++i) {
    const char* colour = colours[i % colours.size()];
    out << "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" << colour << "\" points=\"";
    for (const auto& [at, value] : series[i].points)
      out << x.place(at) << ',' << y.place(value) << ' ';
    out << "\"/>\n";
    for (const auto& [at, value] : series[i].points)
      out << "<circle r=\"3\" cx=\"" << x.place(at) << "\" cy=\"" << y.place(value) << "\" fill=\""
          << colour << "\"/>\n";
    const double legend_y = top + 10 + 20 * static_cast<double>(i);
    out << "<rect x=\"" << width - right + 16 << "\" y=\"" << legend_y - 9
        << "\" width=\"12\" height=\"12\" fill=\"" << colour << "\"/>\n";
    text(width - right + 34, legend_y + 1, "start", series[i].name);
  }
  out << "</svg>\n";
  return out.str();
}

void Plot::write(const std::filesystem::path& path) const {
  std::ofstream file(path);
  file << svg();
  if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + path.string());
}

}  // namespace staithe::bench
