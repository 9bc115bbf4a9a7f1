#include "host/formats/shards.hpp"

#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

namespace tenon {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are little-endian and mapped as they are");

constexpr std::string_view kMagic = "TENONSHD";
constexpr std::uint32_t kPlain = 1, kPacked = 2; // versions

struct Header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t vocab_size;
  std::uint64_t tokens;
  std::uint64_t documents;
  std::uint8_t tokenizer[32];
  std::uint64_t packed_length; // of version 2
  std::uint8_t reserved[24];
};
static_assert(sizeof(Header) == 96);

constexpr std::size_t kDigestBytes = 32;
constexpr std::string_view kPrefix = "sha256:";

std::string to_hex(const std::uint8_t* bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (std::size_t i = 0; i < kDigestBytes; ++i) {
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

int nibble(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return -1;
}

std::array<std::uint8_t, kDigestBytes> from_hex(std::string_view hex) {
  std::array<std::uint8_t, kDigestBytes> bytes{};
  bool good = hex.size() == 2 * kDigestBytes;
  for (std::size_t i = 0; good && i < kDigestBytes; ++i) {
    const int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    good = high >= 0 && low >= 0;
    bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  if (!good) throw Error(Code::bug, "shard", "found the digest \"" + std::string(hex) + "\", need 64 hex digits");
  return bytes;
}

[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& message) {
  throw Error(Code::integrity, "shard", path.string() + ": " + message,
              "delete the file; it is made again from its text");
}

// Documents may be short: their bytes are gathered, and hashed and written a megabyte at a time.
class HashedFile {
 public:
  explicit HashedFile(const std::filesystem::path& path) : file_(path) {}

  void put(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    if (buffer_.size() >= std::size_t{1} << 20) flush();
  }
  void seal() {
    flush();
    const auto digest = from_hex(hash_.hex());
    file_.write(std::as_bytes(std::span(digest)));
    file_.commit();
  }

 private:
  void flush() {
    hash_.update(buffer_);
    file_.write(buffer_);
    buffer_.clear();
  }

  AtomicFile file_;
  Sha256 hash_;
  std::vector<std::byte> buffer_;
};

std::size_t words_of(std::size_t bits) { return (bits + 63) / 64; }
std::size_t padded(std::size_t size) { return (size + 7) & ~std::size_t{7}; }

template <typename T>
std::span<const std::byte> bytes_of(const T* first, std::size_t count) {
  return std::as_bytes(std::span<const T>(first, count));
}

Header header_in(std::span<const std::byte> bytes, const std::filesystem::path& path) {
  Header header;
  if (bytes.size() < sizeof header + sizeof(std::uint64_t) + kDigestBytes) {
    damaged(path, "found " + std::to_string(bytes.size()) + " bytes, need a header, one offset and a digest");
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::string_view(header.magic, sizeof header.magic) != kMagic) damaged(path, "byte 0: this is no token shard");
  if (header.version != kPlain && header.version != kPacked) {
    damaged(path, "byte 8: found version " + std::to_string(header.version) + ", need 1 or 2");
  }
  return header;
}

// Where the parts of a file are, which together fill it.
struct Layout {
  std::size_t starts, mask, mask_words, body;
};

Layout layout_of(const Header& header, std::size_t file_bytes, const std::filesystem::path& path) {
  // Bounded by the file first, so that the sums below cannot overflow.
  if (header.tokens > file_bytes / sizeof(std::int32_t) || header.documents > file_bytes / sizeof(std::uint64_t)) {
    damaged(path, "byte 16: found " + std::to_string(header.tokens) + " tokens in " + std::to_string(header.documents) +
                      " documents, more than " + std::to_string(file_bytes) + " bytes can hold");
  }
  Layout layout{};
  layout.starts = padded(sizeof header + header.tokens * sizeof(std::int32_t));
  layout.mask = layout.starts + (header.documents + 1) * sizeof(std::uint64_t);
  layout.mask_words = header.version == kPacked ? words_of(header.tokens) : 0;
  layout.body = layout.mask + layout.mask_words * sizeof(std::uint64_t);
  if (layout.body + kDigestBytes != file_bytes) {
    damaged(path, "found " + std::to_string(file_bytes) + " bytes, the header needs " +
                      std::to_string(layout.body + kDigestBytes));
  }
  return layout;
}

} // namespace

Shard Shard::open(const std::filesystem::path& path) { return Shard(path); }

Shard::Shard(const std::filesystem::path& path) : file_(std::make_shared<const MappedFile>(path)) {
  read(file_->bytes());
  check();
  check_mask();
}

void Shard::read(std::span<const std::byte> bytes) {
  const Header header = header_in(bytes, path());
  const Layout layout = layout_of(header, bytes.size(), path());
  const auto* stored = reinterpret_cast<const std::uint8_t*>(bytes.data() + layout.body);
  const std::string hash = sha256(bytes.first(layout.body));
  if (hash != to_hex(stored)) {
    damaged(path(), "byte " + std::to_string(layout.body) + ": found the digest " + to_hex(stored) + ", need " + hash);
  }
  digest_ = std::string(kPrefix) + hash;
  tokenizer_digest_ = std::string(kPrefix) + to_hex(header.tokenizer);
  if (header.vocab_size == 0 || header.vocab_size > std::numeric_limits<std::int32_t>::max()) {
    damaged(path(), "byte 12: found a vocabulary of " + std::to_string(header.vocab_size));
  }
  vocab_size_ = static_cast<std::int32_t>(header.vocab_size);
  tokens_ = {reinterpret_cast<const std::int32_t*>(bytes.data() + sizeof header), header.tokens};
  starts_ = {reinterpret_cast<const std::uint64_t*>(bytes.data() + layout.starts), header.documents + 1};
  if (header.version == kPlain) return;
  if (header.packed_length == 0 || header.tokens % header.packed_length != 0) {
    damaged(path(), "byte 64: found " + std::to_string(header.tokens) + " tokens, need whole blocks of " +
                        std::to_string(header.packed_length));
  }
  packed_length_ = header.packed_length;
  loss_mask_ = {reinterpret_cast<const std::uint64_t*>(bytes.data() + layout.mask), layout.mask_words};
}

void Shard::check() const {
  if (starts_.front() != 0 || starts_.back() != tokens_.size()) {
    damaged(path(), "documents reach from " + std::to_string(starts_.front()) + " to " +
                        std::to_string(starts_.back()) + ", need 0 to " + std::to_string(tokens_.size()));
  }
  const auto fall = std::is_sorted_until(starts_.begin(), starts_.end());
  if (fall != starts_.end()) {
    damaged(path(), "document " + std::to_string(fall - starts_.begin()) + " starts before the one ahead of it");
  }
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] >= 0 && tokens_[i] < vocab_size_) continue;
    damaged(path(), "token " + std::to_string(i) + " is " + std::to_string(tokens_[i]) + ", need one below " +
                        std::to_string(vocab_size_));
  }
}

void Shard::check_mask() const {
  const std::size_t used = tokens_.size() % 64;
  if (used != 0 && !loss_mask_.empty() && loss_mask_.back() >> used != 0)
    damaged(path(), "the loss mask has bits beyond the last token");
}

bool Shard::is_padding(std::size_t index) const {
  if (packed_length_ == 0) return false;
  for (std::size_t i = starts_[index]; i < starts_[index + 1]; ++i)
    if (counts(i)) return false;
  return true;
}

std::size_t Shard::block_text(std::size_t index, std::size_t length) const {
  const std::size_t begin = index * length, end = begin + block(index, length).size();
  if (packed_length_ == 0) return length;
  // The last document that begins before the block's end.
  const auto after = std::lower_bound(starts_.begin(), starts_.end(), end);
  const auto last = static_cast<std::size_t>(after - starts_.begin()) - 1;
  return is_padding(last) ? std::max<std::size_t>(starts_[last], begin) - begin : length;
}

std::span<const std::int32_t> Shard::document(std::size_t index) const {
  if (index >= document_count()) {
    throw Error(Code::bug, "shard",
                "asked for document " + std::to_string(index) + " of " + std::to_string(document_count()));
  }
  return tokens_.subspan(starts_[index], starts_[index + 1] - starts_[index]);
}

std::span<const std::int32_t> Shard::block(std::size_t index, std::size_t length) const {
  if (length == 0 || index >= block_count(length)) {
    throw Error(Code::bug, "shard",
                "asked for block " + std::to_string(index) + " of " + std::to_string(length) + " tokens, found " +
                    std::to_string(tokens_.size()) + " tokens");
  }
  return tokens_.subspan(index * length, length);
}

namespace {

Header header_of(std::uint32_t version, std::int32_t vocab_size, const std::string& tokenizer_digest) {
  if (!tokenizer_digest.starts_with(kPrefix)) throw Error(Code::bug, "shard", "need a tokenizer digest sha256:...");
  const auto tokenizer = from_hex(std::string_view(tokenizer_digest).substr(kPrefix.size()));
  Header header{};
  std::copy(kMagic.begin(), kMagic.end(), header.magic);
  header.version = version;
  header.vocab_size = static_cast<std::uint32_t>(vocab_size);
  std::copy(tokenizer.begin(), tokenizer.end(), header.tokenizer);
  return header;
}

// tokens_of(i): the tokens of document i of `count`. mask: what stands behind the starts.
template <class TokensOf>
void write(const std::filesystem::path& path, Header header, std::size_t count, const TokensOf& tokens_of,
           const std::vector<std::uint64_t>& mask) {
  std::vector<std::uint64_t> starts{0};
  for (std::size_t i = 0; i < count; ++i) {
    for (const std::int32_t token : tokens_of(i)) {
      if (token >= 0 && static_cast<std::uint32_t>(token) < header.vocab_size) continue;
      throw Error(Code::bug, "shard",
                  "token " + std::to_string(token) + " in a vocabulary of " + std::to_string(header.vocab_size));
    }
    starts.push_back(starts.back() + tokens_of(i).size());
  }
  header.tokens = starts.back();
  header.documents = count;
  HashedFile file(path);
  file.put(bytes_of(&header, 1));
  for (std::size_t i = 0; i < count; ++i) file.put(bytes_of(tokens_of(i).data(), tokens_of(i).size()));
  const std::size_t end = sizeof header + header.tokens * sizeof(std::int32_t);
  const std::array<std::byte, 8> zeros{};
  file.put(std::span(zeros).first(padded(end) - end));
  file.put(bytes_of(starts.data(), starts.size()));
  file.put(bytes_of(mask.data(), mask.size()));
  file.seal();
}

} // namespace

void write_shard(const std::filesystem::path& path, std::span<const std::vector<std::int32_t>> documents,
                 std::int32_t vocab_size, const std::string& tokenizer_digest) {
  const auto tokens_of = [&](std::size_t i) -> const std::vector<std::int32_t>& { return documents[i]; };
  write(path, header_of(kPlain, vocab_size, tokenizer_digest), documents.size(), tokens_of, {});
}

void write_packed_shard(const std::filesystem::path& path, std::span<const MaskedDocument> documents,
                        std::size_t packed_length, std::int32_t vocab_size, const std::string& tokenizer_digest) {
  std::size_t tokens = 0;
  for (const MaskedDocument& document : documents) {
    if (document.counts.size() != document.tokens.size())
      throw Error(Code::bug, "shard", "a document's mask is not as long as the document");
    tokens += document.tokens.size();
  }
  if (packed_length == 0 || tokens % packed_length != 0)
    throw Error(Code::bug, "shard",
                std::to_string(tokens) + " tokens fill no blocks of " + std::to_string(packed_length));
  std::vector<std::uint64_t> mask(words_of(tokens));
  std::size_t at = 0;
  for (const MaskedDocument& document : documents)
    for (const bool counts : document.counts) {
      mask[at / 64] |= std::uint64_t{counts} << (at % 64);
      ++at;
    }
  Header header = header_of(kPacked, vocab_size, tokenizer_digest);
  header.packed_length = packed_length;
  const auto tokens_of = [&](std::size_t i) -> const std::vector<std::int32_t>& { return documents[i].tokens; };
  write(path, header, documents.size(), tokens_of, mask);
}

} // namespace tenon
