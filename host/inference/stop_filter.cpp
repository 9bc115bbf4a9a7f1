#include "host/inference/stop_filter.hpp"

#include <algorithm>

namespace tenon {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::vector<Piece> StopFilter::push(Piece piece) {
  if (stopped() || piece.text.empty()) return {};
  text_ += piece.text;
  held_.push_back(std::move(piece));

  // Of those that are complete, the one that begins first; among equals, the one given first.
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_)
    if (const std::size_t at = text_.find(stop); at < first) first = at, found_ = stop;
  if (stopped()) return take(first);

  std::size_t keep = 0; // the longest end of the text that begins a stop string
  for (const std::string& stop : stops_)
    for (std::size_t n = std::min(stop.size() - 1, text_.size()); n > keep; --n)
      if (text_.compare(text_.size() - n, n, stop, 0, n) == 0) keep = n;
  return take(text_.size() - keep);
}

std::vector<Piece> StopFilter::flush() { return stopped() ? std::vector<Piece>{} : take(text_.size()); }

std::vector<Piece> StopFilter::take(std::size_t bytes) {
  std::vector<Piece> out;
  text_.erase(0, bytes);
  while (bytes > 0) {
    Piece& front = held_.front();
    const std::size_t part = std::min(bytes, front.text.size());
    out.push_back({front.text.substr(0, part), front.token});
    front.text.erase(0, part);
    bytes -= part;
    if (front.text.empty()) held_.pop_front();
  }
  return out;
}

} // namespace tenon
