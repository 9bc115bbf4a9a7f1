#include "host/formats/trace_file.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/serialize.hpp>
#include <cmath>
#include <cstring>
#include <set>

namespace tenon {
namespace {

constexpr std::int64_t kSchema = 1;
const char* const kKey = "tenon.trace";

std::int64_t natural(const JsonReader& reader, std::int64_t least) {
  const std::int64_t number = reader.integer();
  if (number < least) reader.fail(fmt::format("found {}, need {} or more", number, least));
  return number;
}

std::vector<TensorSpec> specs(const TraceCorpus& corpus, std::size_t experts, std::size_t chosen) {
  const auto n = static_cast<std::size_t>(corpus.tokens), d = static_cast<std::size_t>(corpus.documents);
  return {{corpus.name + "/tokens", Dtype::I32, {n}},          {corpus.name + "/documents", Dtype::I64, {d + 1}},
          {corpus.name + "/scores", Dtype::F32, {n, experts}}, {corpus.name + "/strengths", Dtype::F32, {n, experts}},
          {corpus.name + "/chosen", Dtype::I32, {n, chosen}},  {corpus.name + "/nll", Dtype::F32, {n}}};
}

std::vector<TensorSpec> all_specs(const TraceHead& head, std::int64_t chosen) {
  std::vector<TensorSpec> out;
  std::set<std::string> names;
  for (const TraceCorpus& corpus : head.corpora) {
    if (corpus.name.empty() || corpus.name.find('/') != std::string::npos)
      throw Error(Code::usage, "trace", fmt::format("found the corpus name \"{}\", need one without /", corpus.name));
    if (!names.insert(corpus.name).second)
      throw Error(Code::usage, "trace", fmt::format("found the corpus {} twice", corpus.name),
                  "give each its own name");
    for (TensorSpec& spec : specs(corpus, head.experts.size(), static_cast<std::size_t>(chosen)))
      out.push_back(std::move(spec));
  }
  return out;
}

void check_shape(const SafetensorsFile& file, const TensorSpec& need) {
  const TensorView& found = file.at(need.name);
  if (found.dtype != need.dtype || found.shape != need.shape)
    throw Error(Code::integrity, file.name(),
                fmt::format("the tensor {} is {} [{}], need {} [{}]", need.name, dtype_name(found.dtype),
                            fmt::join(found.shape, ","), dtype_name(need.dtype), fmt::join(need.shape, ",")));
}

} // namespace

TraceHead TraceHead::parse(const json::value& value, const std::string& where) {
  const JsonReader reader(value, where);
  if (const std::int64_t schema = reader.at("schema").integer(); schema != kSchema)
    throw Error(Code::incompatible, where, fmt::format("found a trace of schema {}, need {}", schema, kSchema),
                schema > kSchema ? "update Tenon" : "make it again with tenon trace");
  TraceHead head;
  head.model = reader.at("model").string();
  head.tokenizer = reader.at("tokenizer").string();
  head.routing = reader.at("routing").object();
  head.sequence_length = natural(reader.at("sequence_length"), 2);
  const JsonReader experts = reader.at("experts"), corpora = reader.at("corpora");
  for (std::size_t i = 0; i < experts.array().size(); ++i) {
    const JsonReader one = experts.at(i);
    head.experts.push_back({one.at("name").string(), one.at("version").string(), one.at("entry").string()});
  }
  if (head.experts.empty()) experts.fail("found no expert, need at least the base");
  for (std::size_t i = 0; i < corpora.array().size(); ++i) {
    const JsonReader one = corpora.at(i);
    head.corpora.push_back({one.at("name").string(), one.at("digest").string(), natural(one.at("tokens"), 0),
                            natural(one.at("documents"), 0)});
  }
  return head;
}

json::object TraceHead::to_json() const {
  json::array all_experts, all_corpora;
  for (const TraceExpert& expert : experts)
    all_experts.push_back(json::object{{"name", expert.name}, {"version", expert.version}, {"entry", expert.entry}});
  for (const TraceCorpus& corpus : corpora)
    all_corpora.push_back(json::object{
        {"name", corpus.name}, {"digest", corpus.digest}, {"tokens", corpus.tokens}, {"documents", corpus.documents}});
  return {{"schema", kSchema},      {"model", model},     {"tokenizer", tokenizer},
          {"experts", all_experts}, {"routing", routing}, {"sequence_length", sequence_length},
          {"corpora", all_corpora}};
}

TraceWriter::TraceWriter(const std::filesystem::path& path, const TraceHead& head, std::int64_t chosen)
    : writer_(path, all_specs(head, chosen), {{kKey, json::serialize(head.to_json())}}) {}

void TraceWriter::write_documents(const std::string& corpus, std::span<const std::uint64_t> starts) {
  writer_.write(corpus + "/documents", std::as_bytes(starts)); // far below 2^63
}

void TraceWriter::write(const std::string& corpus, const TraceRows& rows) {
  writer_.write(corpus + "/tokens", std::as_bytes(rows.tokens));
  writer_.write(corpus + "/scores", std::as_bytes(rows.scores));
  writer_.write(corpus + "/strengths", std::as_bytes(rows.strengths));
  writer_.write(corpus + "/chosen", std::as_bytes(rows.chosen));
  writer_.write(corpus + "/nll", std::as_bytes(rows.nll));
}

TraceFile::TraceFile(const std::filesystem::path& path) : TraceFile(SafetensorsFile(path)) {}
TraceFile::TraceFile(std::span<const std::byte> bytes, const std::string& name)
    : TraceFile(SafetensorsFile(bytes, name)) {}

TraceFile::TraceFile(SafetensorsFile file) : file_(std::move(file)) {
  const auto found = file_.metadata().find(kKey);
  if (found == file_.metadata().end())
    throw Error(Code::incompatible, file_.name(), "found no trace in it, need what tenon trace wrote",
                "make one: tenon trace NAME --data NAME=PATH --out FILE");
  head_ = TraceHead::parse(parse_json(found->second, file_.name() + " (" + kKey + ")"), file_.name());
  for (const TraceCorpus& corpus : head_.corpora) {
    const TensorView& chosen = file_.at(corpus.name + "/chosen");
    for (const TensorSpec& spec : specs(corpus, head_.experts.size(), chosen.shape.empty() ? 0 : chosen.shape.back()))
      check_shape(file_, spec);
  }
}

void TraceFile::strengths(const TraceCorpus& corpus, std::int64_t first, std::span<float> out) const {
  const std::size_t experts = head_.experts.size();
  const auto bytes = file_.at(corpus.name + "/strengths").bytes;
  const std::size_t begin = static_cast<std::size_t>(first) * experts * sizeof(float), size = out.size_bytes();
  if (first < 0 || begin > bytes.size() || size > bytes.size() - begin)
    throw Error(Code::bug, file_.name(), fmt::format("{} has no tokens {} and on", corpus.name, first));
  std::memcpy(out.data(), bytes.data() + begin, size);
  for (std::size_t row = 0; row < out.size() / experts; ++row) {
    double sum = 0;
    bool good = true;
    for (const float w : out.subspan(row * experts, experts)) sum += w, good = good && w >= 0; // NaN is not
    if (!good || !(std::abs(sum - 1) < 1e-3))
      throw Error(Code::integrity, file_.name(),
                  fmt::format("{}/strengths: token {} has strengths that are no shares of 1 (their sum is {})",
                              corpus.name, first + static_cast<std::int64_t>(row), sum));
  }
}

} // namespace tenon
