// Tenon's own tokenizer.json, schema tenon.tokenizer/1: canonical JSON of exactly these members.
#include "host/formats/tokenizer_impl.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"
#include "registry/base/json.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <limits>

namespace tenon {
namespace {

constexpr const char* kSchema = "tenon.tokenizer/1";

json::value id_or_null(const std::optional<std::int32_t>& id) { return id ? json::value(*id) : json::value(nullptr); }

// The object has exactly these members, and may have the optional one.
void expect_members(const JsonReader& reader, std::initializer_list<std::string_view> names,
                    std::string_view optional = {}) {
  for (std::string_view name : names) reader.at(name);
  for (const auto& member : reader.object()) {
    if (member.key() == optional) continue;
    if (std::find(names.begin(), names.end(), std::string_view(member.key())) == names.end()) {
      reader.fail("found the member \"" + std::string(member.key()) + "\", which " + kSchema + " does not have");
    }
  }
}

std::int32_t small_integer(const JsonReader& reader) {
  const std::int64_t number = reader.integer();
  if (number < 0 || number > std::numeric_limits<std::int32_t>::max()) {
    reader.fail("found " + std::to_string(number) + ", need a token id");
  }
  return static_cast<std::int32_t>(number);
}

std::optional<std::int32_t> read_id(const JsonReader& reader) {
  if (reader.value().is_null()) return std::nullopt;
  return small_integer(reader);
}

AddedToken read_added(const JsonReader& reader) {
  expect_members(reader, {"id", "content", "special", "lstrip", "rstrip", "normalized"});
  AddedToken token;
  token.id = small_integer(reader.at("id"));
  token.content = reader.at("content").string();
  token.special = reader.at("special").boolean();
  token.lstrip = reader.at("lstrip").boolean();
  token.rstrip = reader.at("rstrip").boolean();
  token.normalized = reader.at("normalized").boolean();
  return token;
}

std::pair<std::string, std::string> read_merge(const JsonReader& reader) {
  const std::string pair = reader.string();
  const std::size_t space = pair.find(' ');
  if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) {
    reader.fail("found a merge without exactly one space, need \"left right\"");
  }
  return {pair.substr(0, space), pair.substr(space + 1)};
}

TokenizerData read_data(const JsonReader& root) {
  expect_members(root,
                 {"schema", "type", "split", "tokens", "merges", "added", "ignore_merges", "bos", "eos", "add_bos",
                  "chat_template"},
                 "normalizer");
  if (const std::string schema = root.at("schema").string(); schema != kSchema) {
    root.at("schema").fail("found \"" + utf8_replaced(schema) + "\", need " + kSchema);
  }
  TokenizerData data;
  data.type = root.at("type").string();
  data.split = root.at("split").string();
  data.normalizer = root.string("normalizer", "");
  const JsonReader tokens = root.at("tokens"), merges = root.at("merges"), added = root.at("added");
  tokens.array(), merges.array(), added.array();
  for (std::size_t i = 0; i < tokens.size(); ++i) data.tokens.push_back(tokens.at(i).string());
  for (std::size_t i = 0; i < merges.size(); ++i) data.merges.push_back(read_merge(merges.at(i)));
  for (std::size_t i = 0; i < added.size(); ++i) data.added.push_back(read_added(added.at(i)));
  data.ignore_merges = root.at("ignore_merges").boolean();
  data.bos = read_id(root.at("bos"));
  data.eos = read_id(root.at("eos"));
  data.add_bos = root.at("add_bos").boolean();
  data.chat_template = root.at("chat_template").string();
  return data;
}

} // namespace

std::string tokenizer_json(const TokenizerData& data) {
  json::array tokens, merges, added;
  for (const std::string& token : data.tokens) tokens.emplace_back(token);
  for (const auto& [left, right] : data.merges) merges.emplace_back(fmt::format("{} {}", left, right));
  for (const AddedToken& token : data.added) {
    added.push_back(json::object{{"id", token.id},
                                 {"content", token.content},
                                 {"special", token.special},
                                 {"lstrip", token.lstrip},
                                 {"rstrip", token.rstrip},
                                 {"normalized", token.normalized}});
  }
  json::object all{{"schema", kSchema},
                   {"type", data.type},
                   {"split", data.split},
                   {"tokens", std::move(tokens)},
                   {"merges", std::move(merges)},
                   {"added", std::move(added)},
                   {"ignore_merges", data.ignore_merges},
                   {"bos", id_or_null(data.bos)},
                   {"eos", id_or_null(data.eos)},
                   {"add_bos", data.add_bos},
                   {"chat_template", data.chat_template}};
  if (!data.normalizer.empty()) all["normalizer"] = data.normalizer; // so that others keep the digest they had
  return canonical_json(all);
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view where) {
  const json::value root = parse_json(text, where);
  Tokenizer tokenizer(read_data(JsonReader(root, std::string(where))));
  if (tokenizer.digest() != "sha256:" + sha256(text)) {
    throw Error(Code::integrity, std::string(where),
                "found another spelling of the same tokenizer, need canonical JSON (one tokenizer, one digest)",
                "import the model again from its source");
  }
  return tokenizer;
}

} // namespace tenon
