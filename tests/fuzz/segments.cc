// The plan of a transfer over several connections: no byte is in two segments, none is left out,
// and the extents that it is made of are what a set of bytes is.
#include "proxy/segments.h"

#include <vector>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

using cache::Extent;
using cache::Extents;

// Extents beside a set of bytes.
void check_extents(Input& input) {
  constexpr std::uint64_t size = 96;
  Extents extents;
  std::vector<bool> bytes(size);
  for (int i = 0; i < 24 && !input.empty(); ++i) {
    const std::uint64_t begin = input.below(size);
    const std::uint64_t end = std::min(size, begin + input.below(24));
    extents.add({begin, end});
    for (std::uint64_t at = begin; at < end; ++at) bytes[at] = true;
  }
  check(extents.bytes() == static_cast<std::uint64_t>(std::ranges::count(bytes, true)));
  for (std::size_t i = 1; i < extents.all().size(); ++i)
    check(extents.all()[i - 1].end < extents.all()[i].begin);
  for (std::uint64_t at = 0; at < size; ++at) {
    std::uint64_t end = at;
    while (end < size && bytes[end]) ++end;
    check(extents.end_of(at) == end);
    std::uint64_t gap = at;
    while (gap < size && bytes[gap]) ++gap;
    std::uint64_t gap_end = gap;
    while (gap_end < size && !bytes[gap_end]) ++gap_end;
    check(extents.gap_from(at, size) == (Extent{gap, gap_end}));
    check(extents.contains({at, at + 1}) == bytes[at]);
  }
}

class Transfer {
 public:
  Transfer(std::uint64_t size, std::size_t connections)
      : plan_(size, connections,
              {.first_bytes = 8, .least_bytes = 8, .most_bytes = 32, .near_bytes = 4}) {}

  void step(Input& input) {
    switch (input.below(6)) {
      case 0:
        ask();
        break;
      case 1:
        if (!segments_.empty())
          arrive(input.below(segments_.size()), input.below(40), input.flag());
        break;
      case 2:
        if (!segments_.empty()) give_up(input.below(segments_.size()));
        break;
      case 3:
        ask(input.below(40));
        break;
      case 4:
        plan_.want(input.below(plan_.size_bytes() + 8), there_, input.flag());
        break;
      default:
        ask();
        break;
    }
    check_claims();
  }

  // Whatever has happened: everything arrives in the end.
  void finish() {
    while (!segments_.empty()) give_up(segments_.size() - 1);
    for (std::uint64_t rounds = 0; ask(); ++rounds) {
      check(rounds <= plan_.size_bytes());
      check_claims();
      arrive(0, plan_.size_bytes());
      give_up(0);
    }
    check(present_.bytes() == plan_.size_bytes());
    check(plan_.unclaimed_bytes(there_) == 0);
  }

 private:
  bool ask(std::uint64_t alone_bytes = 0) {
    const auto segment = plan_.next(there_, alone_bytes);
    if (!segment) return false;
    const Extent range = (*segment)->range;
    check(range.begin < range.end && range.end <= plan_.size_bytes());
    check((*segment)->at == range.begin);
    for (std::uint64_t at = range.begin; at < range.end; ++at)
      check(!present_.contains({at, at + 1}));
    segments_.push_back(*segment);
    return true;
  }
  void arrive(std::uint64_t which, std::uint64_t bytes, bool written = true) {
    const auto segment = segments_[which];
    const std::uint64_t at = std::min(segment->range.end, segment->at + bytes);
    present_.add({segment->at, at});
    if (written) there_.add({segment->at, at});
    plan_.advance(segment, at);
  }
  void give_up(std::uint64_t which) {
    plan_.release(segments_[which]);
    segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(which));
  }
  void check_claims() {
    check(plan_.active() == segments_.size());
    std::vector<int> claimed(plan_.size_bytes());
    for (const auto& segment : segments_) {
      check(segment->at <= segment->range.end);
      for (std::uint64_t at = segment->range.begin; at < segment->range.end; ++at)
        check(++claimed[at] == 1);
    }
    std::uint64_t unclaimed = 0;
    for (std::uint64_t at = 0; at < claimed.size(); ++at)
      unclaimed += claimed[at] == 0 && !present_.contains({at, at + 1}) ? 1 : 0;
    check(plan_.unclaimed_bytes(there_) == unclaimed);
  }

  proxy::SegmentPlan plan_;
  Extents present_;  // has come
  Extents there_;    // of it what is written, as far as the plan is told
  std::vector<proxy::SegmentPlan::Handle> segments_;
};

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  if (input.flag()) {
    check_extents(input);
    return;
  }
  Transfer transfer(1 + input.below(300), 1 + input.below(8));
  for (int steps = 0; steps < 200 && !input.empty(); ++steps) transfer.step(input);
  transfer.finish();
}

}  // namespace staithe::fuzz
